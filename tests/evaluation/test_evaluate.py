"""A whole evaluation, from training to tables, of the smallest runs that differ."""

from collections import Counter
from pathlib import Path

import pytest

from stabmon.evaluation import labels, matrix, outcome, report
from stabmon.evaluation.evaluate import Execution, evaluate, second_repairs
from stabmon.evaluation.judge import Ends
from stabmon.evaluation.pool import Pool
from stabmon.evaluation.recorded import Recorded
from stabmon.evaluation.repairs import Repair
from stabmon.evaluation.runs import Job
from stabmon.evaluation.tuning import Search, Tried
from stabmon.fixes import warmup_fix
from stabmon.rules import Limits
from stabmon.store import open_run

pytestmark = pytest.mark.slow

MATRIX = """
seeds: [0]
bases:
  tiny:
    cpu: true
    config:
      workload: language
      model: {layers: 1, width: 16, heads: 2, context: 64, bias: length}
      training: {steps: 24, batch: 4, learning_rate: 1e-2, evaluate_length: 64}
variants:
  - {name: length, kind: healthy, bases: [tiny]}
  - {name: zero, kind: b = 0, bases: [tiny], change: {model.bias: 0.0}}
  - {name: longer, kind: longer evaluation, bases: [tiny], change: {training.evaluate_length: 256}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, report.Evaluation, Counter[str]]:
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "matrix.yaml").write_text(MATRIX)
    runs = matrix.runs_of(matrix.load(folder / "matrix.yaml"))
    seen: Counter[str] = Counter()
    execution = Execution(folder, "cpu", 1, lambda what, done, total: seen.update({what: 1}))
    return folder, evaluate(runs, execution, Limits()), seen


def test_what_preflight_and_monitor_find_is_in_the_verdicts(done) -> None:
    verdicts = {one.name: one for one in done[1].verdicts}
    assert verdicts["tiny.length.0"].alarms == ()
    alarm = verdicts["tiny.zero.0"].alarms[0]
    assert (alarm.code, alarm.opened, alarm.at_start, alarm.fix) == ("ATT001", 0, True, "bias")
    assert verdicts["tiny.longer.0"].alarms[0].at_start


def test_failed_runs_are_trained_again_with_the_fix_and_healthy_ones_are_not(done) -> None:
    fixed = (
        {path.name.rsplit(".", 1)[0] for path in (done[0] / "fixed").iterdir()}
        if done[2]["settings_that_fix"] > 1
        else set()
    )
    failed = {one.name for one in done[1].verdicts if one.failed}
    assert {".".join(name.split(".")[:3]) for name in fixed} <= failed
    assert all((one.fixed is None) == (not one.fixable) for one in done[1].verdicts)


def test_a_second_fix_is_the_one_suggested_by_the_failed_re_run(done) -> None:
    folder = done[0] / "runs" / "tiny.zero.0"
    run = outcome.read(folder)
    assert run is not None
    first = Repair(run.name, warmup_fix(9, "why"), None, Job(run.run_config, folder, "cpu"))
    best = run.model_copy(update={"name": "best", "losses": [loss / 10 for loss in run.losses]})
    for known, kinds in (([best], ["bias"]), ([run], [])):
        references = labels.references({known[0].name: known})
        second = second_repairs([first], {run.name: run}, Ends(references, {}, {}), Limits())
        assert [(one.how, one.fix.kind) for one in second] == [("second", kind) for kind in kinds]


def test_a_replay_finds_what_the_monitor_found_live(done) -> None:
    folder = done[0] / "runs" / "tiny.zero.0"
    with open_run(folder) as reader:
        live = reader.findings()
    assert sorted(live, key=lambda one: one.key) == sorted(Recorded(folder).in_the_samples(), key=lambda one: one.key)


def test_finished_runs_are_not_trained_again(done) -> None:
    folder, first, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/outcome.json")}
    again = evaluate(
        matrix.runs_of(matrix.load(folder / "matrix.yaml")), Execution(folder, "cpu", 1, lambda *_: None), Limits()
    )
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/outcome.json")} == before
    assert again == first


def test_the_stored_result_prints_the_same_tables(done) -> None:
    folder, evaluation, _ = done
    stored = report.read(folder)
    assert stored == evaluation
    assert report.markdown(stored.of(None)) == report.markdown(evaluation.of(None))


def test_a_limit_moves_only_where_that_decides_more_runs_rightly(done) -> None:
    runs = [Tried(done[0] / "runs" / name, failed=False) for name in ("tiny.length.0", "tiny.zero.0")]
    with Pool(1) as pool:
        search = Search(runs, Limits.from_mapping({"att.row_mass_max": 1000, "ignore": ["CFG001"]}), pool)
        assert search.flagged == [frozenset(), frozenset({"ATT001"})]
        assert [search.improve(name) for name in ("att.twin_ratio_max", "att.row_mass_min")] == [True, False]
    assert search.flagged == [frozenset(), frozenset()]
    assert list(search.limits.differences) == ["att.twin_ratio_max", "att.row_mass_max", "ignore"]
