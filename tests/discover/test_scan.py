"""Attention is found where it runs, in models that nobody here wrote."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from stabmon import record_attention
from stabmon.discover import scan
from stabmon.errors import ModelError
from stabmon.kernels import sigmoid_attention
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention


def _ours(**options):
    return SigmoidAttention(8, 2, max_length=16, **options)


def _attentions(model, *args, **kwargs):
    if not args and not kwargs:
        args = (torch.randn(2, 6, 8),)
    return [site.attention for site in scan(model, args, kwargs).sites]


class Foreign(nn.Module):
    """Attention of 2 heads that calls ``attend``."""

    def __init__(self, attend=None):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.given = attend

    def attend(self, q, k, v):
        return self.given(q, k, v)

    def heads(self, x):
        return self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        return self.proj(self.attend(*self.heads(x)).transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """A pre-norm block around any attention."""

    def __init__(self, attention):
        super().__init__()
        self.ln, self.attn, self.mlp = nn.LayerNorm(8), attention, nn.Linear(8, 8)

    def forward(self, x):
        x = x + self.attn(self.ln(x))
        return x + self.mlp(x)


def _helper(q, k, v):
    return sigmoid_attention(q, k, v)


class Default(Foreign):
    def attend(self, q, k, v, function=sigmoid_attention):
        return function(q, k, v)


class ClassAttribute(Foreign):
    function = staticmethod(sigmoid_attention)

    def attend(self, q, k, v):
        return self.function(q, k, v)


class Table(Foreign):
    def attend(self, q, k, v):
        return {"sigmoid": sigmoid_attention}["sigmoid"](q, k, v)


WAYS = {
    "directly": lambda: Foreign(sigmoid_attention),
    "through a helper": lambda: Foreign(_helper),
    "through a partial": lambda: Foreign(functools.partial(sigmoid_attention, is_causal=True)),
    "through a lambda": lambda: Foreign(lambda q, k, v: sigmoid_attention(q, k, v)),
    "as a default argument": Default,
    "as a class attribute": ClassAttribute,
    "through a dictionary": Table,
}


@pytest.mark.parametrize("way", WAYS)
def test_sigmoid_attention_is_found_however_it_is_called(way):
    (found,) = _attentions(nn.Sequential(Residual(WAYS[way]())))
    assert (found.kind, found.door, found.layer) == ("functional", "stabmon.kernels.sigmoid_attention", "0")
    assert (found.module, found.block, found.branch) == ("0.attn", "0", "0.attn")
    assert (found.heads, found.head_dim) == (2, 4)


def _sdpa(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("function", [_sdpa, lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)])
def test_softmax_attention_of_torch_is_found_by_any_name(function):
    (found,) = _attentions(nn.Sequential(Residual(Foreign(function))))
    assert (found.kind, found.is_causal, found.bias) == ("softmax", True, None)


class Own(nn.MultiheadAttention):
    def forward(self, query, key, value, **_):
        q, k, v = functional_projections(self, query)
        return self.out_proj(sigmoid_attention(q, k, v, bias=-2.0).transpose(1, 2).flatten(2)), None


def functional_projections(module, x):
    projected = nn.functional.linear(x, module.in_proj_weight, module.in_proj_bias)
    return projected.unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)


def test_a_multihead_attention_with_a_forward_of_its_own_is_what_it_calls():
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    layer.self_attn = Own(8, 2, batch_first=True)
    (found,) = _attentions(nn.Sequential(layer))
    assert (found.kind, found.bias) == ("functional", -2.0)


def test_functions_are_their_own_again_after_a_scan():
    before = torch.nn.functional.scaled_dot_product_attention, scaled_dot_product_attention
    scan(nn.Sequential(Residual(Foreign(_sdpa))), (torch.randn(2, 6, 8),), {})
    assert (torch.nn.functional.scaled_dot_product_attention, scaled_dot_product_attention) == before


def test_attention_written_by_hand_is_named_and_found_where_it_is_shown():
    def written(q, k, v):
        return torch.sigmoid(q @ k.transpose(-2, -1) / 2 - 1.5) @ v

    def shown(q, k, v):
        output = written(q, k, v)
        record_attention(q, k, output, bias=-1.5)
        return output

    found = scan(nn.Sequential(Residual(Foreign(written))), (torch.randn(2, 6, 8),), {})
    assert not found.sites
    assert "0.attn computes sigmoid weights of shape [2, 2, 6, 6] itself" in found.notes[0]
    assert "stabmon.record_attention" in found.notes[0]
    (one,) = scan(nn.Sequential(Residual(Foreign(shown))), (torch.randn(2, 6, 8),), {}).sites
    assert (one.attention.kind, one.attention.bias, one.attention.branch) == ("functional", -1.5, "0.attn")


def test_what_cannot_be_read_is_said_and_not_raised():
    def shown(q, k, v):
        record_attention(q[0], k, v)
        return sigmoid_attention(q, k, v)

    found = scan(nn.Sequential(Residual(Foreign(shown))), (torch.randn(2, 6, 8),), {})
    assert len(found.sites) == 1
    assert found.notes == (
        "0.attn: an attention call cannot be read: record_attention takes query as [B, H, N, D], got shape [2, 6, 4]",
    )


def test_our_attention_is_described():
    attention = _ours(bias="learnable", position="rope", qk_norm=True, is_causal=True)
    (found,) = _attentions(nn.ModuleDict({"a": nn.Sequential(Block(8, attention, hybrid_norm=True))})["a"])
    assert found.kind == "sigmoid"
    assert (found.module, found.block, found.branch) == ("0.attention", "0", "0.attention_scale")
    assert (found.heads, found.head_dim, found.max_length, found.bias) == (2, 4, 16, "learnable")
    assert (found.position, found.qk_norm, found.hybrid_norm, found.layer_scale) == ("rope", True, True, False)
    assert found.is_causal is True


def test_a_fixed_bias_is_a_number_and_one_that_differs_between_heads_is_unknown():
    model = nn.Sequential(Block(8, _ours(bias=-2.5)), Block(8, _ours()))
    with torch.no_grad():
        model[1].attention.bias[0] = 1.0
    assert [attention.bias for attention in _attentions(model)] == [-2.5, None]


class HandNorm(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Normed(Foreign):
    def __init__(self, norm):
        super().__init__(_sdpa)
        self.first, self.second = norm, norm

    def heads(self, x):
        q, k, v = super().heads(x)
        return self.first(q), self.second(k), v


@pytest.mark.parametrize("norm", [nn.RMSNorm(4), nn.LayerNorm(4), HandNorm()])
def test_a_qk_norm_is_recognised_by_what_it_does(norm):
    assert _attentions(nn.Sequential(Residual(Normed(norm))))[0].qk_norm
    assert not _attentions(nn.Sequential(Residual(Foreign(_sdpa))))[0].qk_norm


class Gained(Residual):
    """LayerScale as a parameter of the block, and a norm on the branch where there is one."""

    def __init__(self, attention, norm=None):
        super().__init__(attention)
        self.gamma, self.after = nn.Parameter(torch.full((8,), 0.1)), norm or nn.Identity()

    def forward(self, x):
        return x + self.gamma * self.after(self.attn(self.ln(x)))


def test_a_layer_scale_and_a_hybrid_norm_are_recognised_by_what_they_do():
    (plain,) = _attentions(nn.Sequential(Residual(Foreign(_sdpa))))
    assert (plain.layer_scale, plain.hybrid_norm) == (False, False)
    site = scan(nn.Sequential(Gained(Foreign(_sdpa), nn.LayerNorm(8))), (torch.randn(2, 6, 8),), {}).sites[0]
    assert (site.attention.layer_scale, site.attention.hybrid_norm) == (True, True)
    assert site.attention.unknown == ("branch",), "the product with gamma is no module's output"


def test_a_branch_that_no_hook_can_read_is_said():
    found = scan(nn.Sequential(Gained(Foreign(_sdpa))), (torch.randn(2, 6, 8),), {})
    assert found.notes == ("0: branch ratio is missing: its branch, as it is added, is no module's output",)
    alone = scan(nn.Sequential(Foreign(_sdpa)), (torch.randn(2, 6, 8),), {})
    assert "joins no residual stream" in alone.notes[0]


class Parallel(Residual):
    def forward(self, x):
        return x + (self.attn(self.ln(x)) + self.mlp(self.ln(x)))


class Twice(nn.Module):
    """Two attentions in one module, with one projection."""

    def __init__(self):
        super().__init__()
        self.inner = Foreign(_sdpa)

    def forward(self, x):
        return self.inner(x) + self.inner(x.flip(1))


def _read(point):
    return point.name, point.side


def test_streams_and_branches_are_those_of_the_addition():
    (site,) = scan(nn.Sequential(Parallel(Foreign(_sdpa))), (torch.randn(2, 6, 8),), {}).sites
    assert (_read(site.surroundings.branch), _read(site.surroundings.stream)) == (
        ("0.attn", "output"),
        ("0.ln", "input"),
    )
    post = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    (site,) = scan(nn.Sequential(post), (torch.randn(2, 6, 8),), {}).sites
    assert (_read(site.surroundings.branch), _read(site.surroundings.stream)) == (
        ("0.dropout1", "output"),
        ("0.self_attn", "input"),
    )


def test_a_module_that_is_called_twice_makes_two_series():
    found = _attentions(nn.Sequential(Residual(Twice())))
    assert [(one.layer, one.module) for one in found] == [
        ("0.attn.inner[0]", "0.attn.inner"),
        ("0.attn.inner[1]", "0.attn.inner"),
    ]


def test_an_attention_that_blocks_share_has_a_series_in_each():
    shared = _ours()
    sites = scan(nn.Sequential(Block(8, shared), Block(8, shared)), (torch.randn(2, 6, 8),), {}).sites
    assert [(site.attention.layer, site.attention.block) for site in sites] == [("0", "0"), ("1", "1")]
    assert [_read(site.surroundings.stream)[0] for site in sites] == ["0.attention_norm", "1.attention_norm"]


def test_the_order_is_that_of_the_pass():
    found = _attentions(nn.Transformer(8, 2, 1, 1, 8, batch_first=True), torch.randn(2, 6, 8), torch.randn(2, 5, 8))
    assert [one.layer for one in found] == [
        "encoder.layers.0",
        "decoder.layers.0.self_attn",
        "decoder.layers.0.multihead_attn",
    ]


def test_layers_that_get_the_function_from_the_model_have_series_of_their_own():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Residual(Foreign(sigmoid_attention)) for _ in range(12))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    assert [one.layer for one in _attentions(Model())] == [f"layers.{index}" for index in range(12)]


def test_wrappers_are_stripped_from_names():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    (found,) = _attentions(Wrapper(nn.Sequential(Wrapper(Block(8, _ours())))))
    assert (found.layer, found.module) == ("0", "0.attention")


def test_the_attention_alone_is_a_model_too():
    assert _attentions(_ours())[0].layer == "model"


def test_masks_say_whether_an_attention_is_causal():
    def masked(q, k, v):
        hidden = torch.full((6, 6), torch.finfo(torch.float32).min).triu(1)
        return scaled_dot_product_attention(q, k, v, attn_mask=hidden)

    assert _attentions(nn.Sequential(Residual(Foreign(masked))))[0].is_causal
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1)
    assert _attentions(encoder, torch.randn(2, 6, 8), mask=mask)[0].is_causal
    assert _attentions(encoder, torch.randn(2, 6, 8), mask=mask == -torch.inf)[0].is_causal
    for least, is_causal in (
        (-1e4, True),
        (-2000.0, False),
    ):  # as the kernels take a mask: a pair is hidden from -8192 on
        finite = mask.clamp(min=least)
        assert _attentions(encoder, torch.randn(2, 6, 8), mask=finite)[0].is_causal == is_causal


class Draws(Residual):
    """Draws from every generator, counts its passes, and moves a buffer."""

    def __init__(self):
        super().__init__(SoftmaxAttention(8, 2))
        self.register_buffer("moving", torch.zeros(1))
        self.passes, self.dropout = 0, nn.Dropout(0.5)

    def forward(self, x):
        self.passes += 1
        self.seen = x
        self.moving += 1
        return super().forward(x) * (random.random() + np.random.rand() + torch.rand(()))


def test_a_scan_leaves_no_trace():
    model = Draws().train()
    model.attn.eval()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = torch.rand(()), random.random(), np.random.rand()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    scan(model, (torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1)),), {})
    assert (torch.rand(()), random.random(), np.random.rand()) == expected
    assert (model.passes, float(model.moving), hasattr(model, "seen")) == (0, 0.0, False)
    assert (model.training, model.attn.training) == (True, False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_does_not_take_the_batch_says_what_it_was_given():
    with pytest.raises(ModelError, match=r"Sequential does not take this batch: it was called with \(float32\[2, 3\]"):
        scan(nn.Sequential(Residual(_ours())), (torch.randn(2, 3),), {})
