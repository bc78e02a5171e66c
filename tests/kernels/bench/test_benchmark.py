import json
import re
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from stabmon.cli import app
from stabmon.cli import bench as command
from stabmon.kernels import sigmoid_attention
from stabmon.kernels.bench import accuracy, benchmark, figure, masks, published_results, speed, tables, timing
from stabmon.kernels.problem import Backend

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "kernels" / "bench"
ROW = {
    "dim": 64,
    "length": 2048,
    "is_causal": False,
    "forward": {"fixed": 440.0, "learnable": 330.0, "cudnn": 400.0, "flash": 300.0},
    "backward": {"fixed": 220.0, "learnable": 220.0, "cudnn": 400.0, "flash": 200.0},
    "statistics": {"sums": 0.001, "rows": 0.02},
}
COST = {"dim": 128, "length": 4096, "is_causal": True, "microseconds": 501.2, "sums": -0.001, "rows": 0.015}


@pytest.mark.skipif(torch.cuda.is_available(), reason="concerns machines without a CUDA device")
def test_without_a_device_the_command_says_so():
    with pytest.raises(RuntimeError, match="bench needs a CUDA device, this machine has none"):
        benchmark.bench()


def test_cells_count_their_work():
    cell = speed.Cell(128, 8192, False)
    assert cell.shape == (2, 16, 8192, 128)
    assert cell.flops == 4 * 2 * 16 * 8192**2 * 128
    assert speed.Cell(128, 8192, True).flops == cell.flops / 2
    assert len(speed.GRID) == 12


def test_ratios_are_averaged_as_products():
    faster = ROW | {"forward": ROW["forward"] | {"fixed": 1760.0}}
    assert benchmark.means_over_peers([ROW, faster])["forward/fixed"] == {"cudnn": 2.2, "flash": 2.933}


def test_the_table_shows_every_cell_and_mean():
    result = {
        "device": "a GPU",
        "versions": {"torch": "2.11", "triton": "3.6"},
        "dtype": "bfloat16",
        "accuracy": {"output": 1.02},
        "lengths": [{"dim": 64, "length": 4096, "output": 1.03, "query": 1.04}],
        "memory": {"peak": 602_000_000, "tensors": 470_000_000, "workspace": 134_000_000},
        "cells": [ROW],
        "means": benchmark.means_over_peers([ROW]),
        "statistics": [COST],
    }
    text = benchmark.table(result)
    assert "d 64 full n 2048" in text
    assert "output 1.02" in text
    assert "d 64 n 4096: output 1.03, query 1.04" in text
    assert "MB: 602; q, k, v, dO, dQ, dK, dV 470, dQ in float32 134" in text
    assert "cudnn ×1.1 (worst ×1.10), flash ×1.467 (worst ×1.47)" in text
    assert "d 128 causal n 4096      501.2   -0.1% +1.5%" in text
    json.dumps(result)


def test_the_figure_and_its_table_show_every_cell():
    results = {"auto": {"device": "a GPU", "cells": [ROW]}, "triton": {"device": "a GPU", "cells": [ROW]}}
    assert "| d 64 full 2048 | 440 / 220 | 440 / 220 | 330 / 220 | 400 / 400 | 300 / 200 | ×1.10 / ×0.55 |" in (
        tables.speeds(results)
    )
    paths = ElementTree.fromstring(figure.figure(results)).findall(".//{*}path[@clip-path]")
    forward = []
    for _, _, colour in figure.SERIES.values():
        bar = next(path.get("d") for path in paths if f"fill: {colour}" in path.get("style"))
        heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", bar)]
        forward.append(max(heights) - min(heights))
    assert [height / forward[0] for height in forward] == pytest.approx([1, 1, 400 / 440, 300 / 440], abs=0.01)


def test_the_cost_of_statistics_is_a_table_of_lengths():
    rows = [COST | {"length": length, "is_causal": causal} for length in (8192, 4096) for causal in (False, True)]
    assert tables.costs({"auto": {"statistics": rows}}).splitlines() == [
        "| n | d 128 full | d 128 causal |",
        "|---|---|---|",
        "| 4096 | 1.5 % (−0.1) | 1.5 % (−0.1) |",
        "| 8192 | 1.5 % (−0.1) | 1.5 % (−0.1) |",
    ]


def test_means_and_worst_cells_over_cudnn_are_a_table():
    result = {"cells": [ROW, ROW | {"length": 8192, "forward": ROW["forward"] | {"fixed": 360.0}}]}
    shown = tables.over_cudnn({"auto": result | {"means": benchmark.means_over_peers(result["cells"])}}).splitlines()
    assert shown[2] == "| auto, number | ×0.99 | ×0.90 (d 64 full 8192) | ×0.55 | ×0.55 (d 64 full 2048) |"
    assert shown[3] == "| auto, tensor [H] | ×0.82 | ×0.82 (d 64 full 2048) | ×0.55 | ×0.55 (d 64 full 2048) |"


def test_peers_timed_in_separate_runs_are_compared_cell_by_cell_and_relative_to_cudnn():
    assert set(published_results.MEASURED) == set(speed.GRID)
    shown = published_results.table([row | {"length": 2048} for row in (ROW, ROW | {"dim": 128})]).splitlines()
    ratio, shared = 440 / 384, (440 / 400) / (384 / 468)
    assert shown[2] == (
        f"| FlashSigmoid, d 64 | ×{ratio:.2f} to ×{ratio:.2f}, mean ×{ratio:.2f} | ×0.78 to ×0.78, mean ×0.78 "
        f"| ×{shared:.2f} / ×0.81 |"
    )


def test_the_notes_and_the_figure_show_the_stored_results():
    results = json.loads((FOLDER / "bench.json").read_text())
    notes = (ROOT / "docs" / "kernels" / "laboratory.md").read_text()
    assert all(table in notes for table in tables.markdown(results))
    assert figure.figure(results) == (FOLDER / "bench.svg").read_text()
    assert all(benchmark.means_over_peers(result["cells"]) == result["means"] for result in results.values())


def test_the_figure_says_which_run_its_file_lacks(tmp_path):
    with pytest.raises(SystemExit, match="expected one file"):
        figure.main([])
    path = tmp_path / "results.json"
    path.write_text('{"auto": {}}')
    with pytest.raises(SystemExit, match="has no run of triton"):
        figure.main([str(path)])


def test_no_speed_is_measured_while_a_result_is_wrong(monkeypatch):
    monkeypatch.setattr(benchmark, "_random_case", lambda *_: None)
    monkeypatch.setattr(accuracy, "run", lambda *_: {})
    monkeypatch.setattr(accuracy, "ratios", lambda *_: {"output": 1.1, "key": 1.6})
    with pytest.raises(RuntimeError, match=r"at most 1\.5, got \{'key': 1\.6\}; nothing was timed"):
        benchmark.check(torch.bfloat16, "cpu")


def test_a_run_is_kept_beside_those_of_other_backends(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    for backend, device in (("auto", "old"), ("triton", "a GPU"), ("auto", "new")):
        monkeypatch.setattr(benchmark, "bench", lambda device=device, **given: given | {"device": device})
        monkeypatch.setattr(benchmark, "table", lambda result: result["device"])
        found, text = benchmark.answer(None, backend, 7, False, path)
        assert (found, text) == ({"backend": backend, "rounds": 7, "device": device}, device)
    kept = json.loads(path.read_text())
    assert {name: result["device"] for name, result in kept.items()} == {"auto": "new", "triton": "a GPU"}


def test_only_the_named_cells_run(monkeypatch):
    ran = []
    monkeypatch.setattr(benchmark, "bench", lambda *cells, **_: ran.extend(cells))
    monkeypatch.setattr(benchmark, "table", str)
    benchmark.answer("d128-causal-2048,d64-full-8192", "auto", 1, False, None)
    cells = [speed.Cell(128, 2048, True), speed.Cell(64, 8192, False)]
    assert ran == [cells, cells]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--cells", "d64-2048"], "a cell must look like d128-causal-2048 or d64-full-8192, got 'd64-2048'"),
        (["--cells", "d64-full-2048", "--output", "results.json"], "leave out --cells, --host and --grid"),
        (["--host", "--output", "results.json"], "leave out --cells, --host and --grid"),
        (["--grid", "decode", "--host"], "--grid times all backends"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert error in capsys.readouterr().err


def test_the_command_line_offers_what_the_module_does(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(benchmark, "answer", lambda *arguments: given.append(arguments) or ({}, "as text"))
    into = tmp_path / "results.json"
    done = CliRunner().invoke(app, ["bench", "--backend", "triton", "--rounds", "5", "--output", str(into)])
    assert done.output.strip() == "as text"
    CliRunner().invoke(app, ["bench", "--cells", "d64-full-2048"])
    CliRunner().invoke(app, ["bench", "--host"])
    CliRunner().invoke(app, ["bench", "--grid", "decode"])
    assert given == [
        (None, "triton", 5, False, into, None),
        ("d64-full-2048", "auto", timing.ROUNDS, False, None, None),
        (None, "auto", timing.ROUNDS, True, None, None),
        (None, "auto", timing.ROUNDS, False, None, "decode"),
    ]
    assert {choice.value for choice in command.Backend} == set(get_args(Backend))


@pytest.mark.gpu
def test_one_cell_runs():
    cells = [speed.Cell(64, 2048, True)]
    result = benchmark.bench(cells, cells, rounds=2)
    assert result["cells"][0]["forward"]["fixed"] > 0
    assert result["statistics"][0]["microseconds"] > 0
    assert max(result["accuracy"].values()) <= accuracy.ALLOWED
    assert {at["length"] for at in result["lengths"]} == set(benchmark.LENGTHS)
    held = result["memory"]
    assert held["peak"] <= held["tensors"] + held["workspace"] + 2**21


@pytest.mark.parametrize("option", [["--backend", "triton"], ["--host"], ["--cells", "d64-full-2048"]], ids=str)
def test_what_overhead_does_not_time_is_refused_beside_it(option):
    answer = CliRunner().invoke(app, ["bench", "--overhead", *option])
    assert answer.exit_code == 2
    assert "leave out" in answer.output


def test_the_masks_that_are_timed_mean_the_same_to_both():
    row = masks.Row(2, 2, 16, 16, by_pair=False, added=False, is_causal=True)
    mask = masks.mask_of(row, "cpu")
    assert mask[..., 0].flatten().tolist() == [True, False], "the longest padding of a batch"
    query, key, value = torch.randn(2, 2, 16, 16), torch.randn(2, 2, 16, 16), torch.eye(16).expand(2, 2, 16, 16)
    ours = sigmoid_attention(query, key, value, is_causal=True, attn_mask=mask)
    theirs = masks.contenders(row, mask)["softmax"](query, key, value).nan_to_num()
    assert torch.equal(ours > 0, theirs > 0)
