import copy
import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stabmon

BATCH, QUERIES, KEYS, WIDTH, HEADS = 2, 5, 7, 32, 4
BIAS = -math.log(KEYS)


def _plain(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, added: Tensor
) -> tuple[Tensor, Tensor]:
    """Return output and weights in float64, for inputs [B, N, E]; hidden and added are [B, H, N_q, N_k]."""
    doubled = copy.deepcopy(attention).double()
    if doubled.in_proj_weight is None:
        weights = [doubled.q_proj_weight, doubled.k_proj_weight, doubled.v_proj_weight]
    else:
        weights = list(doubled.in_proj_weight.split(WIDTH))
    biases = doubled.in_proj_bias.split(WIDTH)
    q, k, v = (
        (x.double() @ w.T + b).view(*x.shape[:2], HEADS, -1).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    logits = q @ k.transpose(2, 3) / math.sqrt(WIDTH / HEADS) + BIAS + added
    weights_of = torch.where(hidden, 0.0, logits.sigmoid())
    mixed = (weights_of @ v).transpose(1, 2).flatten(2)
    return mixed @ doubled.out_proj.weight.T + doubled.out_proj.bias, weights_of


def _inputs(queries: int = QUERIES, keys: int = KEYS, key_width: int = WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(BATCH, queries, WIDTH), torch.randn(BATCH, keys, key_width), torch.randn(BATCH, keys, key_width)


def _attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, **{"batch_first": True, **options})
    nn.init.normal_(attention.in_proj_bias)
    stabmon.convert(attention, max_length=KEYS)
    return attention


_HIDDEN = torch.rand(BATCH * HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(1)) < 0.4
_ADDED = torch.randn(BATCH * HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(2))
_PADDING = torch.tensor([[False] * 5 + [True] * 2, [True] * 2 + [False] * 5])


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("padding", [None, _PADDING, _PADDING * -1e9], ids=["all", "padding", "float padding"])
@pytest.mark.parametrize(
    "mask",
    [None, _HIDDEN[0], _HIDDEN, _ADDED[0], _ADDED],
    ids=["no mask", "bool 2", "bool 3", "float 2", "float 3"],
)
def test_output_and_weights_are_those_of_plain_sigmoid_attention(
    mask: Tensor | None, padding: Tensor | None, need_weights: bool
) -> None:
    attention, inputs = _attention(), _inputs()
    shape = (BATCH, HEADS, QUERIES, KEYS)
    hidden, added = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.double)
    if mask is not None:
        whole = (mask if mask.dim() == 3 else mask.expand(BATCH * HEADS, -1, -1)).reshape(shape)
        hidden, added = (whole, added) if mask.dtype == torch.bool else (hidden, whole.double())
    if padding is not None:
        hidden = hidden | _PADDING[:, None, None]
    output, weights = attention(*inputs, key_padding_mask=padding, attn_mask=mask, need_weights=need_weights)
    expected, expected_weights = _plain(attention, *inputs, hidden, added)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-5)
    if need_weights:
        torch.testing.assert_close(weights.double(), expected_weights.mean(1), rtol=1e-4, atol=1e-5)
    else:
        assert weights is None


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no weights"])
def test_a_mask_that_is_said_to_be_causal_is_so(need_weights: bool) -> None:
    attention, inputs = _attention(), _inputs(KEYS)
    mask = nn.Transformer.generate_square_subsequent_mask(KEYS)
    output, _ = attention(*inputs, attn_mask=mask, is_causal=True, need_weights=need_weights)
    hidden = torch.ones(KEYS, KEYS, dtype=torch.bool).triu(1).expand(BATCH, HEADS, -1, -1)
    torch.testing.assert_close(
        output.double(), _plain(attention, *inputs, hidden, torch.zeros(()).double())[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("average", [True, False])
def test_layouts_of_the_inputs_give_the_same(average: bool) -> None:
    inputs = _inputs()
    output, weights = _attention()(*inputs, average_attn_weights=average)
    later = _attention(batch_first=False)(*(x.transpose(0, 1) for x in inputs), average_attn_weights=average)
    torch.testing.assert_close((later[0].transpose(0, 1), later[1]), (output, weights))
    single = _attention()(*(x[0] for x in inputs), average_attn_weights=average)
    torch.testing.assert_close(single, (output[0], weights[0]))


def test_keys_and_values_of_another_width_are_projected() -> None:
    attention, inputs = _attention(kdim=12, vdim=12), _inputs(key_width=12)
    nothing = torch.zeros(BATCH, HEADS, QUERIES, KEYS, dtype=torch.bool)
    expected = _plain(attention, *inputs, nothing, torch.zeros(()).double())[0]
    torch.testing.assert_close(attention(*inputs)[0].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_an_encoder_in_evaluation_without_gradients_computes_what_it_does_in_training(
    norm_first: bool, padded: bool
) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
    before = encoder(_inputs()[1])
    report = stabmon.convert(encoder, max_length=KEYS)
    padding = _PADDING[:1].expand(BATCH, -1) if padded else None
    trained = encoder(_inputs()[1], src_key_padding_mask=padding)
    assert not torch.allclose(trained, before)
    with torch.no_grad():
        evaluated = encoder.eval()(_inputs()[1], src_key_padding_mask=padding)
    torch.testing.assert_close(evaluated, trained)
    report.undo()
    torch.testing.assert_close(encoder.train()(_inputs()[1]), before, rtol=0, atol=0)
    assert encoder.use_nested_tensor is not norm_first


def test_both_attentions_of_a_decoder_layer_are_converted() -> None:
    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True)
    report = stabmon.convert(decoder, max_length=KEYS)
    assert [done.module for done in report.converted] == ["self_attn", "multihead_attn"]
    queries, memory, _ = _inputs()
    mask = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    whole = decoder(queries, memory, tgt_mask=mask, tgt_is_causal=True)
    first = decoder(queries[:, :3], memory, tgt_mask=mask[:3, :3], tgt_is_causal=True)
    torch.testing.assert_close(whole[:, :3], first)


def test_qk_norm_layer_scale_and_a_learnable_bias_learn() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    stabmon.convert(attention, bias="learnable", qk_norm=True, layer_scale=0.1, max_length=KEYS)
    attention(*_inputs())[0].sum().backward()
    added = {name: value.grad for name, value in attention.named_parameters() if name.startswith("sigmoid_")}
    assert len(added) == 4
    assert all(gradient.any() for gradient in added.values())


def test_dropout_of_weights_is_ignored_and_said(caplog: pytest.LogCaptureFixture) -> None:
    from stabmon.conversion import additions

    additions.log_ignored_dropout.cache_clear()
    attention, inputs = _attention(dropout=0.5), _inputs()
    with caplog.at_level(logging.WARNING, "stabmon"):
        assert torch.equal(attention(*inputs)[0], attention(*inputs)[0])
    assert caplog.messages == ["sigmoid attention has no dropout of weights: that of nn.MultiheadAttention is ignored"]


def test_what_softmax_alone_has_is_kept_with_the_reason() -> None:
    class Own(nn.MultiheadAttention):
        pass

    model = nn.ModuleList(
        [
            nn.MultiheadAttention(WIDTH, HEADS),
            nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True),
            nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True),
            Own(WIDTH, HEADS),
        ]
    )
    report = stabmon.convert(model, bias=-2.0)
    assert [kept.module for kept in report.kept] == ["1", "2", "3"]
    assert [kept.reason.split()[0] for kept in report.kept] == ["add_bias_kv", "add_bias_kv", "Own"]


def test_wrong_calls_are_refused() -> None:
    attention, inputs = _attention(), _inputs()
    with pytest.raises(ValueError, match="is_causal describes attn_mask"):
        attention(*inputs, is_causal=True)
    nested = torch.nested.nested_tensor([inputs[0][0], inputs[0][1]], layout=torch.jagged)
    with pytest.raises(ValueError, match="does not take nested tensors"):
        attention(nested, nested, nested)


def test_a_converted_attention_compiles_in_one_graph_and_copies() -> None:
    attention, inputs = _attention(), _inputs()
    expected = attention(*inputs, need_weights=False)[0]
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs, need_weights=False)[0], expected)
    assert torch.equal(copy.deepcopy(attention)(*inputs, need_weights=False)[0], expected)
