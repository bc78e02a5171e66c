import pytest

from stabmon.evaluation import scores
from stabmon.evaluation.intervals import bootstrap, share, wilson
from stabmon.evaluation.labels import Label
from tests.evaluation.made import verdict

FOUR = [
    verdict("a", failed=True, first=0, shown=40, settings=("bias",), fixable=True, fixed=True, fixed_live=True),
    verdict("b", failed=True, first=30, shown=50, settings=("qk_norm",), fixable=True, fixed=False, fixed_live=False),
    verdict("c", failed=True, shown=60),
    verdict("d", failed=False, first=5, codes=("GRD001", "LOS001")),
    verdict("e", failed=False),
]


def test_the_figures_of_five_known_runs() -> None:
    row = scores.scores("all", FOUR)
    assert (row.configurations, row.runs, row.failed) == (5, 5, 3)
    assert row.recall.value == pytest.approx(2 / 3)
    assert row.precision.value == pytest.approx(2 / 3)
    assert row.false_alarms.value == pytest.approx(1.0)  # two rules in one of two healthy runs
    assert row.lead.value == pytest.approx(30.0)  # of 40 and 20
    assert row.at_start.value == pytest.approx(1 / 3)
    assert row.cause.value == pytest.approx(0.5)  # the fix is the bias; the second run needed QK norm
    assert row.fixed.value == pytest.approx(1 / 3)
    assert row.fixed_live.value == pytest.approx(0.5)


def test_undecided_runs_count_as_healthy_or_not_at_all() -> None:
    middle = verdict("f", failed=False, first=0, label=Label(why="undecided", loss=1.0, reference=None))
    row = scores.scores("all", [*FOUR, middle])
    assert (row.runs, row.failed, row.undecided) == (6, 3, 1)
    assert (row.precision.value, row.precision_of_decided.value) == (pytest.approx(0.5), pytest.approx(2 / 3))
    assert (row.false_alarms.value, row.false_alarms_of_decided.value) == (pytest.approx(1.0), pytest.approx(1.0))
    assert row.recall == scores.scores("all", FOUR).recall


def test_runs_fixed_by_the_first_fix_and_by_the_second_are_counted() -> None:
    tried = {"failed": True, "first": 0, "fixable": True}
    runs = [
        verdict("a", **tried, fixed=True, fixed_in_two=True),
        verdict("b", **tried, fixed=False, fixed_in_two=True),
        verdict("c", **tried, fixed=False, fixed_in_two=False),
        verdict("d", **tried, fixed=False),
    ]
    row = scores.scores("all", runs)
    assert (row.fixed.value, row.fixed.count) == (0.25, 4)
    assert (row.fixed_in_two.value, row.fixed_in_two.count) == (0.5, 4)  # d: a second fix that was not tried


def test_a_fix_that_was_not_tried_counts_for_nothing_and_a_missing_one_as_a_failure() -> None:
    untried = verdict("a", failed=True, first=0, fixable=True)
    assert scores.scores("all", [untried]).fixed.value is None
    assert scores.scores("all", [untried, verdict("b", failed=True)]).fixed.value == 0.0


def test_nothing_to_count_is_no_figure() -> None:
    row = scores.scores("healthy", [verdict("e", failed=False)])
    assert (row.recall.value, row.lead.value, str(row.precision)) == (None, None, "-")


def test_there_is_a_row_for_all_runs_each_workload_and_each_kind() -> None:
    assert [row.title for row in scores.scores_by_group(FOUR)] == ["all", "workload language", "b = 0", "healthy"]


def test_a_baseline_s_recall_at_a_precision_takes_its_best_threshold() -> None:
    name = scores.BASELINES[0].name
    runs = [
        verdict("a", failed=True, peak=9.0),
        verdict("b", failed=True, peak=5.0),
        verdict("c", failed=False, peak=7.0),
        verdict("d", failed=False, peak=1.0),
    ]
    assert scores.recall_at(runs, name, 1.0) == 0.5
    assert scores.recall_at(runs, name, 0.6) == 1.0


def test_wilson_s_interval_is_the_textbook_s() -> None:
    assert wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_replicates_are_no_further_evidence() -> None:
    alone = share({"a": [True], "b": [False]})
    twice = share({"a": [True, True], "b": [False, False]})
    assert (twice.low, twice.high, twice.count) == (alone.low, alone.high, 4)


def test_the_bootstrap_draws_configurations() -> None:
    figure = bootstrap({"a": [0.0, 0.0], "b": [10.0, 10.0]}, lambda values: sum(values) / len(values))
    assert (figure.value, figure.low, figure.high) == (5.0, 0.0, 10.0)
    assert bootstrap({"a": [3.0]}, max).low is None
