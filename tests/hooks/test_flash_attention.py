"""The door of flash-attn, through a module of its documented signatures that computes by scaled_dot_product_attention.

The package itself needs a GPU.
"""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stabmon import Schedule, watch
from stabmon.discover import scan

WIDTH, HEADS, LENGTH, BATCH = 8, 2, 6, 3
LENGTHS = (6, 4, 5)
STARTS = torch.tensor([0, 6, 10, 15], dtype=torch.int32)
SLOPES = torch.tensor([0.5, 0.25])


def _seen(queries, keys, causal, window):
    distance = torch.arange(keys) - (torch.arange(queries) + keys - queries)[:, None]
    left, right = (keys + queries if side < 0 else side for side in window)
    return (distance >= -left) & (distance <= (0 if causal else right))


def _attend(q, k, v, causal, window, slopes, softcap=0.0):
    """Return the output and the weights of one sequence: q [N_q, H, D], k and v [N_k, H_k, D]."""
    q, k, v = (part.transpose(0, 1) for part in (q, k, v))
    k, v = (part.repeat_interleave(q.size(0) // part.size(0), 0) for part in (k, v))
    z = q @ k.mT / q.size(-1) ** 0.5
    z = softcap * torch.tanh(z / softcap) if softcap else z
    if slopes is not None:
        places = torch.arange(k.size(1)) - (torch.arange(q.size(1)) + k.size(1) - q.size(1))[:, None]
        z = z - slopes.to(z)[:, None, None] * places.abs()
    z = z.masked_fill(~_seen(q.size(1), k.size(1), causal, window), -torch.inf)
    return (z.softmax(-1) @ v).transpose(0, 1), z


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    alibi_slopes=None, deterministic=False, return_attn_probs=False,
):  # fmt: skip
    if window_size == (-1, -1) and alibi_slopes is None and not softcap:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True).transpose(1, 2)
    each = (_attend(*one, causal, window_size, alibi_slopes, softcap)[0] for one in zip(q, k, v, strict=True))
    return torch.stack(list(each))


def flash_attn_kvpacked_func(q, kv, dropout_p=0.0, softmax_scale=None, causal=False):
    return flash_attn_func(q, *kv.unbind(2), dropout_p, softmax_scale, causal)


def flash_attn_qkvpacked_func(qkv, dropout_p=0.0, softmax_scale=None, causal=False):
    return flash_attn_func(*qkv.unbind(2), dropout_p, softmax_scale, causal)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False,
    block_table=None,
):  # fmt: skip
    parts = zip(*(part.split(cu_seqlens_q.diff().tolist()) for part in (q, k, v)), strict=True)
    output = torch.cat([_attend(*one, causal, window_size, alibi_slopes, softcap)[0] for one in parts])
    return (output, None, None) if return_attn_probs else output


def flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False):
    starts = (cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
    return flash_attn_varlen_func(*qkv.unbind(1), *starts, dropout_p, softmax_scale, causal)


FUNCTIONS = (
    flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func, flash_attn_varlen_func,
    flash_attn_varlen_qkvpacked_func,
)  # fmt: skip


@pytest.fixture
def flash_attn(monkeypatch):
    module = ModuleType("flash_attn")
    vars(module).update({function.__name__: function for function in FUNCTIONS})
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return module


class Attends(nn.Module):
    """A residual branch of q, k, v [B, N, H, D] with ``key_heads``."""

    def __init__(self, attend, key_heads):
        super().__init__()
        self.attend, self.key_heads = attend, key_heads
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * key_heads * WIDTH // HEADS)
        self.out = nn.Linear(WIDTH, WIDTH)

    def project(self, x):
        key, value = self.kv(x).unflatten(-1, (2, self.key_heads, -1)).unbind(2)
        return self.q(x).unflatten(-1, (HEADS, -1)), key, value

    def forward(self, x):
        return x + self.out(self.attend(*self.project(x)).reshape(x.shape))


def _packed(x):
    return torch.cat([one[:length] for one, length in zip(x, LENGTHS, strict=True)])


def _unpacked(x):
    rows = x.split(LENGTHS)
    return torch.stack([functional.pad(one, (0, 0, 0, 0, 0, LENGTH - one.size(0))) for one in rows])


def _varlen(module, q, k, v, **options):
    both = (STARTS, STARTS, LENGTH, LENGTH)
    output = module.flash_attn_varlen_func(*map(_packed, (q, k, v)), *both, return_attn_probs=True, **options)
    return _unpacked(output[0])


CASES = {
    "causal, grouped": (1, {"causal": True}, lambda m, q, k, v: m.flash_attn_func(q, k, v, 0.0, None, True)),
    "window, ALiBi": (
        2,
        {"window": (2, 1), "slopes": SLOPES},
        lambda m, q, k, v: m.flash_attn_func(q, k, v, window_size=(2, 1), alibi_slopes=SLOPES),
    ),
    "one side, softcap": (
        2,
        {"window": (-1, 1), "softcap": 0.5},
        lambda m, q, k, v: m.flash_attn_func(q, k, v, window_size=(-1, 1), softcap=0.5),
    ),
    "kv": (1, {}, lambda m, q, k, v: m.flash_attn_kvpacked_func(q, torch.stack([k, v], 2))),
    "qkv": (2, {}, lambda m, q, k, v: m.flash_attn_qkvpacked_func(torch.stack([q, k, v], 2))),
    "packed": (1, {"causal": True, "lengths": LENGTHS}, lambda m, q, k, v: _varlen(m, q, k, v, causal=True)),
    "packed, ALiBi": (
        2,
        {"window": (2, 0), "slopes": SLOPES, "lengths": LENGTHS},
        lambda m, q, k, v: _varlen(m, q, k, v, window_size=(2, 0), alibi_slopes=SLOPES),
    ),
    "packed qkv": (
        2,
        {"lengths": LENGTHS},
        lambda m, q, k, v: _unpacked(
            m.flash_attn_varlen_qkvpacked_func(_packed(torch.stack([q, k, v], 2)), STARTS, LENGTH)
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_flash_attention_is_recorded_as_softmax_in_float64_gives_it(case, flash_attn, quiet, kept):
    key_heads, how, call = CASES[case]
    torch.manual_seed(0)
    model = nn.Sequential(Attends(lambda q, k, v: call(flash_attn, q, k, v), key_heads))
    x = torch.randn(BATCH, LENGTH, WIDTH)
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(x).sum().backward()
        monitor.step()
        assert not monitor.failures
    (attention,) = monitor.map.attentions
    assert (attention.kind, attention.door) == ("softmax", "flash_attn")
    assert attention.is_causal is bool(how.get("causal"))
    options = how.get("causal", False), how.get("window", (-1, -1)), how.get("slopes"), how.get("softcap", 0.0)
    lengths = how.get("lengths", (LENGTH,) * BATCH)
    each = [
        _attend(*(part[i, :length].detach().double() for part in model[0].project(x)), *options)
        for i, length in enumerate(lengths)
    ]
    z, p = [z for _, z in each], [z.softmax(-1) for _, z in each]
    expected = {
        "attention_norm": sum(out.square().sum((0, 2)) for out, _ in each).div(BATCH).sqrt(),
        "entropy": torch.cat([torch.special.entr(one).sum(-1) for one in p], 1).mean(1),
        "largest_weight": torch.cat([one.amax(-1) for one in p], 1).mean(1),
        "logit_max": torch.stack([one.amax((1, 2)) for one in z]).amax(0),
        "row_mass": torch.ones(HEADS),
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(kept.of(metric), values.numpy(), rtol=2e-5, atol=1e-6, err_msg=metric)


def test_keys_in_pages_are_said_to_be_unread(flash_attn):
    def attend(q, k, v):
        table = torch.zeros(1, 1, dtype=torch.int32)
        both = (STARTS, STARTS, LENGTH, LENGTH)
        return _unpacked(flash_attn.flash_attn_varlen_func(*map(_packed, (q, k, v)), *both, block_table=table))

    found = scan(nn.Sequential(Attends(attend, 2)), (torch.randn(BATCH, LENGTH, WIDTH),), {})
    assert "flash_attn with a block_table reads keys that stabmon does not" in found.notes[0]
