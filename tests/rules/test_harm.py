"""Growth is a warning where there is evidence of harm, and information before: each rule with and without it."""

import pytest

from stabmon.findings import Finding

FACTS = {"layers": 2, "heads": 2, "head_dim": 16, "max_length": 128}
JUMP = [1.5] * 10 + [30.0] * 10


def of(code: str, findings: tuple[Finding, ...]) -> list[str]:
    """Return the severity of each finding of ``code``."""
    return [str(finding.severity) for finding in findings if finding.code == code]


def sharpening(written, *, branch, kind="sigmoid", largest=30.0):
    """Logits, rows, norms, queries and keys that grow at sample 10, and a branch of the given ratio."""
    series = {
        "logit_std": [0.5] * 10 + [7.0] * 10,
        "logit_max": [2.0] * 10 + [largest] * 10,
        "row_mass": [1.0] * 10 + [60.0 if kind == "sigmoid" else 1.0] * 10,
        "attention_norm": [1.0] * 10 + [2000.0] * 10,
        "query_norm": JUMP,
        "key_norm": JUMP,
    }
    series |= {} if branch is None else {"branch_ratio": branch}
    return written({"model": {**FACTS, "kind": kind}, "steps": 20, "series": series}).findings()


@pytest.mark.parametrize(
    ("branch", "severity"), [(4.0, "info"), (40.0, "warning"), (None, "warning")], ids=["small", "large", "unknown"]
)
@pytest.mark.parametrize("code", ["ATT003", "ATT005", "ATT008"])
def test_attention_that_sharpens_is_a_warning_where_it_drowns_the_stream(code, branch, severity, written):
    assert of(code, sharpening(written, branch=branch)) == [severity] * 2


def test_one_sample_of_a_large_branch_is_no_evidence(written):
    assert of("ATT003", sharpening(written, branch=[1.0] * 15 + [40.0] + [1.0] * 4)) == ["info"] * 2


@pytest.mark.parametrize(("largest", "severity"), [(1400.0, "info"), (20_000.0, "warning")])
def test_large_logits_of_softmax_are_a_warning_from_where_runs_diverged(largest, severity, written):
    assert of("ATT003", sharpening(written, branch=40.0, kind="softmax", largest=largest)) == [severity] * 2


@pytest.mark.parametrize(("mass", "severity"), [(0.0004, "warning"), (1.4, "info")], ids=["none", "one-layer"])
def test_starved_rows_are_information_where_another_layer_has_recovered(mass, severity, written):
    masses = {"layers.0/row_mass": 0.0004, "layers.1/row_mass": [0.0004] * 30 + [mass] * 30}
    series = {**masses, "bias": -12.0, "branch_ratio": 0.001, "loss": 2.2}
    found = written({"model": {**FACTS, "bias": -12.0, "is_causal": False}, "steps": 60, "series": series}).findings()
    assert of("ATT002", tuple(one for one in found if one.layer == "layers.0")) == [severity]


@pytest.mark.parametrize(("end", "found"), [(1.5, []), (2.4, ["warning"])], ids=["falls", "stands"])
def test_gradients_that_rise_as_a_model_begins_to_learn_are_no_fault(end, found, written):
    norms = [0.6] * 80 + [6.0] * 40
    losses = [2.3] * 60 + [2.3 + (end - 2.3) * step / 60 + (1.0 if step % 8 == 7 else 0.0) for step in range(60)]
    run = written({"model": FACTS, "steps": 120, "series": {"total_gradient_norm": norms, "loss": losses}})
    assert of("GRD002", run.findings()) == found


@pytest.mark.parametrize(("noise", "found"), [(0.01, ["error"]), (0.15, [])])
def test_a_loss_that_rises_by_less_than_its_noise_has_not_diverged(noise, found, written):
    swing = [noise * (-1) ** step for step in range(160)]
    losses = [level + away for level, away in zip([2.3] * 48 + [0.3] * 64 + [0.38] * 48, swing, strict=True)]
    assert of("LOS002", written({"steps": 160, "series": {"loss": losses}}).findings()) == found
