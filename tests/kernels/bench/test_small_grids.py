"""The rows of small grids: caches in pages, and the table with and without the peers of other packages."""

import torch

from stabmon.kernels import sigmoid_attention
from stabmon.kernels.bench import packages, small_grids
from stabmon.kernels.bench.small_grids import Shape

PAGED = Shape(2, 4, 2, 3, 64, 16, True, page=16)


def test_pages_in_order_are_the_keys_side_by_side():
    pool = torch.randn(2, 8, 16, 2, 16).transpose(2, 3).unbind()
    query, table = torch.randn(2, 4, 3, 16), torch.arange(8, dtype=torch.int32).view(2, 4)
    found = small_grids._paged(PAGED, table, query, *pool)
    keys, values = (x.transpose(1, 2).reshape(2, 64, 2, 16).transpose(1, 2) for x in pool)
    bias = -torch.tensor(64.0).log().item()
    plain = sigmoid_attention(query, keys, values, bias=bias, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(found, plain)


def test_a_row_says_its_pages_and_the_floor_counts_each_key_once():
    assert str(PAGED) == "2, 4:2, 3, 64, 16 causal pages of 16"
    assert PAGED.bytes == PAGED._replace(page=0).bytes


def test_the_table_has_a_column_for_each_contender_that_ran():
    rows = [
        {**PAGED._asdict(), "microseconds": {"auto": 4.0, "side by side": 3.0}, "auto": "split_keys", "floor": 1.0},
        {
            **PAGED._replace(page=0)._asdict(),
            "microseconds": {"auto": 4.0, "cudnn": 8.0, "flash": 6.0, "fa4": 5.0},
            "auto": "hopper",
            "floor": 2.0,
        },
    ]
    lines = small_grids.table({"device": "a GPU", "versions": {}, "rows": rows}).splitlines()[2:]
    columns = "B, H:H_k, N_q, N_k, D | auto (kernel) | cuDNN | FA2 | FA4 | side by side | best peer / auto | bytes"
    assert lines[0] == f"| {columns} |"
    assert lines[2] == "| 2, 4:2, 3, 64, 16 causal pages of 16 | 4.0 (split_keys) |  |  |  | 3.0 |  | 1.0 |"
    assert lines[3] == "| 2, 4:2, 3, 64, 16 causal | 4.0 (hopper) | 8.0 | 6.0 | 5.0 |  | 1.25 | 2.0 |"


def test_peers_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert packages.installed(PAGED, torch.zeros(2, 4, dtype=torch.int32)) == {}
