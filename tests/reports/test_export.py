import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stabmon.records import RunState
from stabmon.reports import export as exports
from stabmon.reports.export import ExportError, export
from stabmon.series import MISSING, Logged, is_missing
from stabmon.store import open_run

parquet = pytest.importorskip("pyarrow.parquet")


def lines(file):
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("block", [4096, 64])
def test_every_sample_of_every_head_is_in_the_csv_bit_for_bit(block, naive, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "BLOCK", block)
    assert export(naive, tmp_path / "naive.csv", "csv") == 300
    found = lines(tmp_path / "naive.csv")
    stored = naive.read("attention_norm", layer="layers.2")
    assert [int(line["step"]) for line in found] == stored.steps.tolist()
    assert [float(line["time [s]"]) for line in found] == stored.times.tolist()
    for head in range(4):
        cells = [line[f"attention_norm/layers.2/head {head} [1]"] for line in found]
        missing = is_missing(stored.values[:, head])
        assert [cell == "" for cell in cells] == missing.tolist()
        numbers = np.array([cell or "nan" for cell in cells]).astype(np.float32)
        assert numbers[~missing].tobytes() == stored.values[~missing, head].tobytes()
    assert found[120]["attention_norm/layers.2/head 1 [1]"] == "NaN"
    assert "loss [as logged]" in found[0]


@pytest.mark.parametrize("block", [4096, 64])
def test_parquet_tells_nan_from_what_was_not_measured_and_carries_units_and_the_run(
    block, naive, tmp_path, monkeypatch
):
    monkeypatch.setattr(exports, "BLOCK", block)
    assert export(naive, tmp_path / "naive.parquet", "parquet") == 300
    table = parquet.read_table(tmp_path / "naive.parquet")
    stored = naive.read("attention_norm", layer="layers.2").values[:, 1]
    column = table.column("attention_norm/layers.2/head 1").combine_chunks()
    missing = is_missing(stored)
    assert column.is_null().to_numpy(zero_copy_only=False).tolist() == missing.tolist()
    assert column.to_numpy(zero_copy_only=False)[~missing].tobytes() == stored[~missing].tobytes()
    field = table.schema.field("attention_norm/layers.2/head 1")
    assert field.metadata[b"unit"] == b"1"
    assert field.metadata[b"definition"]
    assert json.loads(table.schema.metadata[b"stabmon"])["name"] == "naive"
    assert str(table.schema.field("time").type) == "timestamp[us, tz=UTC]"


def test_numbers_that_were_logged_between_samples_have_lines_of_their_own(store, tmp_path):
    writer = store.start("lm")
    writer.sample(0, 1000.0, store.row(0))
    writer.logged([Logged(1, 1001.0, "loss", 4.5)])
    writer.sample(2, 1002.0, store.row(2))
    writer.close(RunState.FINISHED)
    with open_run(store.directory / "lm") as run:
        export(run, tmp_path / "lm.csv", "csv")
    found = lines(tmp_path / "lm.csv")
    assert [line["step"] for line in found] == ["0", "1", "2"]
    assert (found[1]["loss [as logged]"], found[1]["row_mass/layers.0/head 0 [1]"]) == ("4.5", "")
    assert found[1]["time [s]"] == "1001.0"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_run_without_a_sample_is_a_file_without_lines(form, store, tmp_path):
    store.start("new").close(RunState.FAILED)
    with open_run(store.directory / "new") as run:
        assert export(run, tmp_path / f"new.{form}", form) == 0
    assert (tmp_path / f"new.{form}").stat().st_size > 0


def test_a_file_that_cannot_be_written_whole_is_not_there(naive, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match=r"cannot write .*nowhere/naive\.csv"):
        export(naive, tmp_path / "nowhere" / "naive.csv", "csv")
    (tmp_path / "old.csv").write_text("old")
    monkeypatch.setattr(exports, "_lines", lambda block: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(naive, tmp_path / "old.csv", "csv")
    assert [file.name for file in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


def test_a_missing_pyarrow_is_said_with_what_to_install(naive, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"pip install 'stabmon\[parquet\]'"):
        export(naive, tmp_path / "naive.parquet", "parquet")


def test_missing_has_a_mark_of_its_own():
    assert is_missing(np.array([MISSING, np.nan], np.float32)).tolist() == [True, False]


def test_a_pipe_is_written_to_and_a_link_stays_one(naive, tmp_path):
    pipe, link, file = (tmp_path / name for name in ("pipe", "link.csv", "there.csv"))
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(pipe.read_bytes)
        assert export(naive, pipe, "csv") == 300
    link.symlink_to(file)
    export(naive, link, "csv")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert received.result() == file.read_bytes()
