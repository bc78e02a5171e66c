from pathlib import Path

import pytest

from stabmon.evaluation.repairs import again, apply_everywhere, first_fix, from_start, live
from stabmon.fixes import bias_fix, clip_fix, length_fix, qk_norm_fix, together
from stabmon.nn import RMSNorm
from stabmon.nn.self_attention import SelfAttention
from stabmon.records import Attention, Severity
from stabmon.workloads.training import build
from tests.evaluation.made import finding, outcome

ATTENTION = Attention(
    layer="layers.0",
    module="layers.0.attention",
    block="layers.0",
    branch="layers.0.attention_scale",
    kind="sigmoid",
    heads=2,
    head_dim=4,
    bias=0.0,
)


def test_the_first_fix_is_that_of_the_first_alarm_that_has_one() -> None:
    quiet = finding("RES003", 0, Severity.INFO, "pre_norm")
    mute, alarm = finding("LOS001", 5, Severity.WARNING), finding("ATT003", 9, Severity.WARNING, "qk_norm")
    found = first_fix([quiet, mute, alarm], {})
    assert found is not None
    assert (found[0].code, found[1].kind) == ("ATT003", "qk_norm")


def test_without_an_alarm_that_names_a_fix_it_is_that_of_the_first_information() -> None:
    later, first = (
        finding("ATT007", 7, Severity.INFO, "bias"),
        finding("RES003", 0, Severity.INFO, "pre_norm"),
    )
    found = first_fix([later, first, finding("LOS001", 3, Severity.WARNING)], {})
    assert found is not None
    assert found[1].kind == "pre_norm"
    assert first_fix([finding("LOS001", 3, Severity.WARNING)], {}) is None


@pytest.mark.parametrize(("clip", "can_be"), [(3.6, False), (1.0, False), (9.0, True), (None, True)])
def test_a_fix_that_the_training_refuses_is_not_applied_live(clip: float | None, can_be: bool) -> None:
    found = finding("GRD003", 3, Severity.INFO, "clip").model_copy(update={"fixes": (clip_fix(3.6, "why"),)})
    repair = live(outcome("run", [1.0] * 10, training__clip=clip), [found], Path("fixed"), {})
    assert (repair is not None) == can_be


def test_a_model_is_not_changed_into_another_one_while_it_trains() -> None:
    found = finding("CFG002", 0, Severity.WARNING, "length")
    found = found.model_copy(update={"fixes": (length_fix(64, "why"),)})
    run = outcome("run", [1.0] * 10)
    assert live(run, [found], Path("fixed"), {}) is None
    repair = from_start(run, [found], Path("fixed"), {})
    assert repair is not None
    assert repair.job.config.model.context == 64


def test_a_second_fix_is_the_first_that_changes_what_the_first_one_made() -> None:
    bias = finding("CFG001", 0, Severity.WARNING)
    bias = bias.model_copy(update={"fixes": (bias_fix(ATTENTION, -3.0, "why"), clip_fix(0.5, "why"))})
    run = outcome("run", [1.0] * 10)
    first = from_start(run, [bias], Path("fixed"), {})
    assert first is not None
    assert (first.how, first.job.config.model.bias) == ("first", -3.0)
    fixed = outcome("run", [1.0] * 10, model__bias=-3.0)
    second = again(first, fixed, [bias], {})
    assert second is not None
    assert (second.how, second.run, second.fix.kind) == ("second", "run", "clip")
    assert (second.job.config.model.bias, second.job.config.training.clip) == (-3.0, 0.5)
    assert again(first, fixed, [], {}) is None


def test_a_fix_of_two_parts_is_applied_to_every_layer() -> None:
    model = build(outcome("run", [1.0], model__layers=2, model__bias=0.0).run_config, "cpu")
    apply_everywhere(model, together(bias_fix(ATTENTION, -3.0, "why"), qk_norm_fix(ATTENTION, "why")))
    attentions = [module for module in model.modules() if isinstance(module, SelfAttention)]
    assert len(attentions) == 2
    assert all(one.bias.tolist() == [-3.0, -3.0] and isinstance(one.query_norm, RMSNorm) for one in attentions)
