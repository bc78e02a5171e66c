"""Verdicts by the arithmetic of their intervals, and a grid that is trained, stored and judged again."""

import pytest

from stabmon.reproduction import grid
from stabmon.reproduction.arm_group import ArmGroup, name_of, runs
from stabmon.reproduction.claims import STUDENT, Claim, ClaimVerdict, interval, judge
from stabmon.reproduction.comparisons import ZERO
from stabmon.reproduction.grid import groups_of


def claim(**more):
    return Claim(name="a", says="left is lower", source="made up", left=("l",), right=("r",), **more)


def verdict(differences, **more):
    losses = {"l": dict(enumerate(2.0 + one for one in differences)), "r": dict.fromkeys(range(len(differences)), 2.0)}
    return judge(claim(**more), losses).verdict


@pytest.mark.parametrize(
    ("differences", "lower", "level"),
    [
        ([-0.5, -0.51, -0.49], ClaimVerdict.REPRODUCED, ClaimVerdict.NOT_REPRODUCED),
        ([0.5, 0.51, 0.49], ClaimVerdict.NOT_REPRODUCED, ClaimVerdict.NOT_REPRODUCED),
        ([0.01, -0.01, 0.0], ClaimVerdict.NOT_SHOWN, ClaimVerdict.REPRODUCED),
        ([0.5, -0.5, 0.0], ClaimVerdict.NOT_SHOWN, ClaimVerdict.NOT_SHOWN),
        ([-0.5], ClaimVerdict.NOT_SHOWN, ClaimVerdict.NOT_SHOWN),
        ([], ClaimVerdict.NOT_RUN, ClaimVerdict.NOT_RUN),
    ],
)
def test_the_interval_over_seeds_decides(differences, lower, level):
    assert verdict(differences) == lower
    assert verdict(differences, expect="level") == level


def test_the_interval_is_students():
    scipy = pytest.importorskip("scipy.special")
    for freedom, quantile in enumerate(STUDENT, start=1):
        assert quantile == pytest.approx(float(scipy.stdtrit(freedom, 0.975)), abs=5e-4)
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))


def test_sensitivity_is_the_mean_loss_above_the_best_rate():
    losses = {"l1": {0: 1.0}, "l2": {0: 1.2}, "r1": {0: 0.5}, "r2": {0: 3.5}}
    both = claim(sensitivity=True).model_copy(update={"left": ("l1", "l2"), "right": ("r1", "r2")})
    assert judge(both, losses).mean == pytest.approx(0.1 - 1.5)


@pytest.mark.parametrize("subset", ["cpu", "gpu"])
def test_every_claim_is_about_arms_of_the_grid_and_every_run_has_a_name_of_its_own(subset):
    groups = groups_of(subset)
    arms = {f"{group.name}.{arm}" for group in groups for arm in group.arms}
    for group in groups:
        for one in group.claims:
            assert {*one.left, *one.right} <= arms, one.name
    configs = list(runs(groups))
    assert len({config.name for config in configs}) == len(configs)
    assert [config.training.seed for config in configs] == sorted(config.training.seed for config in configs)


def test_a_grid_is_trained_once_and_judged_from_what_is_on_disk(tmp_path, monkeypatch):
    from stabmon.reproduction import reproduce

    base = grid.language(1, 16, 2, 16, steps=4, batch=2, precision="fp32")
    tiny = ArmGroup("tiny", base, {"length": {}, "zero": ZERO}, 2, (claim(),))
    tiny = tiny._replace(
        claims=(tiny.claims[0].model_copy(update={"left": ("tiny.length",), "right": ("tiny.zero",)}),)
    )
    monkeypatch.setattr(reproduce, "groups_of", lambda subset: (tiny,))
    counts = []
    for _ in range(2):
        reproduce.train("cpu", tmp_path, device="cpu", jobs=1, minutes=None, progress=lambda *done: counts.append(done))
    assert counts == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]
    found = reproduce.collect("cpu", tmp_path)
    (one,) = found.results
    assert (one.seeds, len(found.arms)) == (2, 2)
    assert one.verdict is not ClaimVerdict.NOT_RUN
    assert reproduce.Reproduction.model_validate_json(found.model_dump_json()).results[0].mean == one.mean
    assert (tmp_path / name_of(tiny, "zero", 1) / "outcome.json").exists()
    reproduce.train("cpu", tmp_path / "late", device="cpu", jobs=1, minutes=0.0, progress=lambda *_: None)
    assert reproduce.collect("cpu", tmp_path / "late").results[0].verdict is ClaimVerdict.NOT_RUN
