"""The length sweep against models that really have those lengths."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from rich.console import Console
from torch import nn

from stabmon import preflight
from stabmon.errors import ConfigError
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention
from stabmon.preflight_check.report import PreflightReport
from stabmon.preflight_check.sweep import lengths_of, of_inputs, sweep
from stabmon.preflight_check.sweep_report import LengthReport, sentences, sweep_table

WIDTH = 32


def attention(bias: float = -math.log(256), **options: object) -> SigmoidAttention:
    torch.manual_seed(0)
    module = SigmoidAttention(WIDTH, 2, bias=bias, max_length=256, **options)
    nn.init.normal_(module.qkv.weight, std=WIDTH**-0.5)
    return module


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", [64, 256, 1024])
@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"position": "rope"}, {"position": "alibi", "is_causal": True}, {"qk_norm": True}],
    ids=["full", "causal", "rope", "alibi-causal", "qk-norm"],
)
def test_a_length_starts_as_a_model_that_is_given_it(length: int, options: dict[str, object]) -> None:
    module = attention(**options)
    (found,) = sweep("layer", [length], partial(of_inputs, module, tokens(256, batch=4)))
    (real,) = preflight(nn.Sequential(module), tokens(length, batch=4)).rows
    assert found.row_mass == pytest.approx(real.row_mass, rel=0.15)
    assert found.best_bias == pytest.approx(real.best_bias, abs=0.15)
    assert found.twin_ratio == pytest.approx(real.twin_ratio, rel=0.2)


def test_the_sweep_at_the_length_of_the_batch_equals_preflight() -> None:
    module, x = attention(), tokens(64)
    (found,) = sweep("layer", [64], partial(of_inputs, module, x))
    (real,) = preflight(nn.Sequential(module), x).rows
    numbers = found.row_mass, found.twin_ratio, found.best_bias
    assert numbers == pytest.approx((real.row_mass, real.twin_ratio, real.best_bias), rel=1e-4)


def test_the_sweep_reports_the_length_from_which_the_bias_is_wrong() -> None:
    model = nn.Sequential(*[Block(WIDTH, attention(is_causal=True)) for _ in range(3)])
    report = preflight(model, tokens(256), lengths=lengths_of("64:4096"))
    assert len(report.sweep) == 3 * 7
    assert [row.length for row in report.sweep if row.layer == "0" and row.right] == [128, 256, 512]
    said = list(sentences(report.sweep))
    assert len(said) == 1
    assert said[0].startswith("0 to 2: b = -5.545 is right from n = 128 to 512; at n = 1,024 rows sum to ")
    assert said[0] in " ".join(str(report).split())
    assert PreflightReport.model_validate_json(report.model_dump_json()) == report
    assert preflight(model, tokens(256)).sweep == ()


def test_the_model_is_left_as_it_was_and_softmax_is_left_out(count_hooks: Callable[[nn.Module], int]) -> None:
    model = nn.Sequential(Block(WIDTH, SoftmaxAttention(WIDTH, 2)), Block(WIDTH, attention())).train()
    state = torch.get_rng_state()
    report = preflight(model, tokens(16), lengths=[32])
    assert [row.layer for row in report.sweep] == ["1"]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert count_hooks(model) == 0


def test_a_bias_that_is_right_at_no_length_gets_a_suggestion() -> None:
    rows = [
        LengthReport(layer="a", length=n, row_mass=n / 2, twin_ratio=n, bias=0.0, best_bias=-math.log(n))
        for n in (64, 128)
    ]
    assert list(sentences(rows)) == [
        "a: b = 0 is right at none of these lengths; rows sum to one at b* = -4.159 (n = 64) to -4.852 (n = 128)"
    ]


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("256:16384", (256, 512, 1024, 2048, 4096, 8192, 16384)),
        ("100:399", (100, 200)),
        ("512,64", (64, 512)),
        ("7", (7,)),
    ],
)
def test_lengths_are_read_as_a_doubling_range_or_one_by_one(text: str, lengths: tuple[int, ...]) -> None:
    assert lengths_of(text) == lengths


@pytest.mark.parametrize("text", ["", "a:b", "1:8", "512:256", "1,2", "1:2:3", "4:", "-4:8"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="FIRST:LAST"):
        lengths_of(text)


def test_lengths_come_in_order_and_one_key_is_refused() -> None:
    rows = sweep("layer", [32, 8, 32], partial(of_inputs, attention(), tokens(16)))
    assert [row.length for row in rows] == [8, 32]
    with pytest.raises(ValueError, match="at least 2 keys"):
        sweep("layer", [8, 1], partial(of_inputs, attention(), tokens(16)))


def test_the_table_fits_80_columns_at_long_lengths_too() -> None:
    rows = [
        LengthReport(layer=layer, length=16384, row_mass=mass, twin_ratio=ratio, bias=0.0, best_bias=best)
        for layer, mass, ratio, best in (("0", 4090.0, 4670.0, -9.11), ("1", 4170.0, 4820.0, -9.06))
    ]
    console = Console(width=80)
    with console.capture() as shown:
        console.print(sweep_table(rows))
    assert " ".join(shown.get().split()).endswith("16,384 4,090 to 4,170 4,670 to 4,820 0 -9.11 to -9.06 0 of 2")
