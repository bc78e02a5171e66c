import math

import pytest

from stabmon.evaluation import labels
from stabmon.evaluation.labels import FREQUENCIES, SHARE, SPREADS
from tests.evaluation.made import outcome

FALLING = [5.0 - 0.1 * step for step in range(30)]


def ending(loss: float) -> list[float]:
    return FALLING + [loss] * 20


def group(**losses: tuple[float, ...]) -> dict[str, list]:
    return {
        name: [outcome(f"{name}.{seed}", ending(loss), training__seed=seed) for seed, loss in enumerate(ends)]
        for name, ends in losses.items()
    }


def label_of(outcomes: dict[str, list], run) -> labels.Label:
    return labels.label(run, labels.references(outcomes).get(run.group))


def test_the_best_configuration_is_the_reference_and_healthy() -> None:
    outcomes = group(good=(1.0, 1.1), bad=(2.0, 2.1))
    (reference,) = labels.references(outcomes).values()
    assert (reference.configuration, reference.loss) == ("good", pytest.approx(1.05))
    assert [label_of(outcomes, run).why for run in outcomes["good"]] == ["healthy", "healthy"]
    assert [label_of(outcomes, run).why for run in outcomes["bad"]] == ["worse", "worse"]


def test_a_run_is_compared_on_its_own_seed() -> None:
    outcomes = group(good=(1.0, 1.5), other=(1.02, 1.52), bad=(2.0, 4.0))
    assert labels.spreads(outcomes) == {"language": pytest.approx(0.0)}
    assert not any(label_of(outcomes, run).failed for run in outcomes["other"])


def test_the_margin_follows_the_spread_between_replicates() -> None:
    outcomes = group(good=(1.0, 1.0), other=(1.0, 1.4), bad=(2.0, 4.0))
    spread = 1.4826 * 0.2 * math.sqrt(2)
    assert labels.spreads(outcomes) == {"language": pytest.approx(spread)}
    (reference,) = labels.references(outcomes).values()
    assert reference.margin == pytest.approx(SPREADS * spread)
    assert not label_of(outcomes, outcomes["other"][1]).failed


def test_the_margin_is_at_least_a_share_of_what_the_best_has_learnt() -> None:
    margin = SHARE * (FREQUENCIES["language"] - 2.0)
    outcomes = group(good=(2.0, 2.0), other=(2.0 + margin - 0.01,) * 2, worse=(2.0 + margin + 0.01,) * 2)
    assert not label_of(outcomes, outcomes["other"][0]).failed
    assert label_of(outcomes, outcomes["worse"][0]).failed


def test_between_noise_and_margin_the_outcome_is_undecided() -> None:
    margin = SHARE * (FREQUENCIES["language"] - 2.0)
    outcomes = group(good=(2.0, 2.0), near=(2.01, 2.05), mid=(2.0 + margin - 0.01,) * 2, bad=(2.0 + margin + 0.01,) * 2)
    (reference,) = labels.references(outcomes).values()
    assert reference.noise == pytest.approx(SPREADS * labels.spreads(outcomes)["language"])
    assert 0.05 < reference.noise < margin - 0.01
    found = {name: label_of(outcomes, runs[1]) for name, runs in outcomes.items()}
    assert {name: one.why for name, one in found.items()} == {
        "good": "healthy",
        "near": "healthy",
        "mid": "undecided",
        "bad": "worse",
    }
    assert [(one.failed, one.decided) for one in (found["mid"], found["bad"])] == [(False, False), (True, True)]


def test_settings_decide_nothing() -> None:
    outcomes = group(good=(1.0, 1.0))
    same = outcome("wrong", ending(1.0), model__bias=0.0)
    assert not label_of(outcomes, same).failed


def test_runs_of_another_size_or_rate_are_no_reference() -> None:
    outcomes = group(good=(1.0, 1.0))
    for option in ({"model__width": 16}, {"training__learning_rate": 1e-2}, {"training__batch": 4}):
        assert label_of(outcomes, outcome("other", ending(3.0), **option)).reference is None


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ([*FALLING, math.nan, *[1.0] * 20], "not finite"),
        ([*FALLING, math.inf, *[1.0] * 20], "not finite"),
        ([*FALLING, *[6.0] * 20], "diverged"),
        ([*FALLING, *[1.0] * 20], "healthy"),
    ],
)
def test_a_broken_run_needs_no_reference(losses: list[float], why: str) -> None:
    assert labels.label(outcome("run", losses), None).why == why


def test_longer_input_is_held_to_the_best_validation_of_the_group() -> None:
    usual = outcome("usual", ending(1.0), validation_loss=1.3, training__evaluate_length=16)
    longer = outcome("longer", ending(1.0), validation_loss=2.0, training__evaluate_length=64)
    fine = outcome("fine", ending(1.0), validation_loss=1.3, training__evaluate_length=64)
    mid = outcome("mid", ending(1.0), validation_loss=1.31, training__evaluate_length=64)
    nan = outcome("nan", ending(1.0), validation_loss=math.nan, training__evaluate_length=64)
    outcomes = {run.name: [run] for run in (usual, longer, fine, mid, nan)}
    found = {name: label_of(outcomes, runs[0]).why for name, runs in outcomes.items()}
    bad = "worse on longer input"
    assert found == {"usual": "healthy", "longer": bad, "fine": "healthy", "mid": "undecided", "nan": bad}
    reference = labels.references(outcomes)[usual.group]
    trained = outcome("fixed", ending(1.0), validation_loss=2.0, training__evaluate_length=64, model__context=64)
    assert labels.label(trained, reference).why == bad  # trained at that length, it is held to the same
