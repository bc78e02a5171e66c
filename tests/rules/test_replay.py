from pathlib import Path

import pytest

from stabmon.rules import Limits, replay
from stabmon.store import RunWriter, open_run

CASES = sorted((Path(__file__).parent / "cases").glob("*/bad.yaml"))


def store(run, folder):
    writer = RunWriter.create(folder, run.info, run.layout)
    for step, row in zip(run.steps, run.rows, strict=True):
        writer.sample(step, 1e9 + step, row)
    writer.close("finished")
    return folder


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.parent.name)
def test_a_replay_of_a_stored_run_finds_what_was_found_live(file, case, tmp_path):
    run, _ = case(file)
    with open_run(store(run, tmp_path / "run")) as reader:
        again, live = replay(reader), run.findings()
    assert live
    # As JSON, because NaN differs from itself.
    assert [finding.model_dump_json() for finding in again] == [finding.model_dump_json() for finding in live]


def test_a_replay_takes_other_limits_and_ignores_rules(written, tmp_path):
    run = written({"model": {"layers": 2, "max_length": 1024}, "steps": 200, "series": {"row_mass": 8}})
    with open_run(store(run, tmp_path / "run")) as reader:
        assert replay(reader) == ()
        limits = Limits.from_mapping({"att.row_mass_max": 6})
        assert {finding.code for finding in replay(reader, limits)} == {"ATT001"}
        assert replay(reader, limits, ignore=("ATT001",)) == ()
