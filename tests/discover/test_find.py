"""Attention is found by structure, in models that nobody here wrote."""

import pytest
import torch
from torch import nn

import stabmon.kernels as our_kernels
from stabmon.discover import find
from stabmon.errors import ModelError
from stabmon.kernels import sigmoid_attention
from stabmon.kernels import sigmoid_attention as renamed
from stabmon.nn import Block, LayerScale, SigmoidAttention


class Foreign(nn.Module):
    def __init__(self, width=8, n_head=2):
        super().__init__()
        self.n_head = n_head
        self.q_norm, self.k_norm = nn.RMSNorm(width // n_head), nn.RMSNorm(width // n_head)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.c_attn(x).unflatten(-1, (3, self.n_head, -1)).transpose(1, 3).unbind(2)
        return self.c_proj(sigmoid_attention(self.q_norm(q), self.k_norm(k), v).transpose(1, 2).flatten(2))


class Inherits(Foreign): ...


class Renamed(Foreign):
    def forward(self, x):
        return renamed(x, x, x)


class ThroughModule(Foreign):
    def forward(self, x):
        return (lambda y: our_kernels.sigmoid_attention(y, y, y))(x)


class ImportsInside(Foreign):
    def forward(self, x):
        from stabmon.kernels import sigmoid_attention as inside

        return inside(x, x, x)


class MyLayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(8))


class ForeignBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attn, self.ls1, self.mlp = nn.LayerNorm(8), Foreign(), MyLayerScale(), nn.Linear(8, 8)
        self.ls2 = MyLayerScale()


def _ours(**options):
    return SigmoidAttention(8, 2, max_length=16, **options)


def test_layers_are_in_natural_order():
    model = nn.ModuleDict({"layers": nn.ModuleList(Block(8, _ours()) for _ in range(12))})
    assert [attention.layer for attention in find(model).attentions] == [f"layers.{i}" for i in range(12)]


def test_our_attention_is_described():
    block = Block(8, _ours(bias="learnable", position="rope", qk_norm=True, is_causal=True), hybrid_norm=True)
    found = find(nn.ModuleList([block])).attentions[0]
    assert found.kind == "sigmoid"
    assert (found.module, found.block, found.branch) == ("0.attention", "0", "0.attention_scale")
    assert (found.heads, found.head_dim, found.max_length, found.bias) == (2, 4, 16, "learnable")
    assert (found.position, found.qk_norm, found.hybrid_norm, found.layer_scale) == ("rope", True, True, False)
    assert found.is_causal is True


def test_a_fixed_bias_is_a_number_and_one_that_differs_between_heads_is_unknown():
    model = nn.ModuleList([Block(8, _ours(bias=-2.5)), Block(8, _ours())])
    with torch.no_grad():
        model[1].attention.bias[0] = 1.0
    assert [attention.bias for attention in find(model).attentions] == [-2.5, None]


@pytest.mark.parametrize("kind", [Foreign, Inherits, Renamed, ThroughModule, ImportsInside])
def test_a_foreign_module_that_calls_sigmoid_attention_is_found(kind):
    found = find(nn.Sequential(kind(), nn.Linear(8, 8))).attentions
    assert [(attention.kind, attention.module, attention.heads, attention.head_dim) for attention in found] == [
        ("functional", "0", 2, 4)
    ]
    assert found[0].qk_norm


def test_a_foreign_layer_scale_after_the_attention_is_the_branch():
    found = find(nn.ModuleList([ForeignBlock()])).attentions[0]
    assert (found.layer, found.branch, found.layer_scale) == ("0", "0.ls1", True)


def test_an_attention_without_layer_scale_is_its_own_branch():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 2)
    assert [attention.branch for attention in find(model).attentions] == ["layers.0.self_attn", "layers.1.self_attn"]


def test_a_block_with_two_attentions_names_its_series_after_the_modules():
    found = find(nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2), 1)).attentions
    assert [attention.layer for attention in found] == ["layers.0.multihead_attn", "layers.0.self_attn"]


def test_wrappers_are_stripped_from_names():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = Wrapper(nn.ModuleDict({"layers": nn.ModuleList([Wrapper(Block(8, _ours()))])}))
    found = find(model).attentions[0]
    assert (found.layer, found.module) == ("layers.0", "layers.0.attention")


def test_the_attention_alone_is_a_model_too():
    assert find(_ours()).attentions[0].layer == "model"


def test_trainable_parameters_are_counted():
    model = _ours()
    model.out.weight.requires_grad = False
    assert find(model).parameters == 3 * 8 * 8


def test_a_model_without_attention_is_refused_with_what_was_looked_for():
    with pytest.raises(ModelError, match=r"found no attention in Sequential: looked for stabmon.nn.SigmoidAttention"):
        find(nn.Sequential(nn.Linear(2, 2), LayerScale(2, 0.1)))


def test_heads_that_no_attribute_names_are_asked_for_and_taken():
    model = nn.Sequential(Foreign())
    del model[0].n_head
    with pytest.raises(ModelError, match=r"pass heads=\{'0': <number of heads>\}"):
        find(model)
    found = find(model, {"0": 4}).attentions[0]
    assert (found.heads, found.head_dim) == (4, 2)


def test_heads_for_a_module_that_is_no_attention_are_refused():
    with pytest.raises(ModelError, match=r"heads names 1.attention.*found: 0.attention"):
        find(nn.Sequential(Block(8, _ours())), {"1.attention": 2})
