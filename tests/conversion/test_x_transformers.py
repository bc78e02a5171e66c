"""Conversion of x-transformers' attention, against sigmoid attention written out in float64."""

import math
import warnings

import pytest
import torch

import stabmon
from stabmon.conversion import edit
from stabmon.errors import ModelError

LENGTH, TOKENS = 12, 16
X = torch.randint(TOKENS, (2, LENGTH), generator=torch.Generator().manual_seed(0))
MASK = torch.arange(LENGTH) < torch.tensor([[LENGTH], [7]])
ATTEND = "attn_layers.layers.0.1.attend"


@pytest.fixture(autouse=True)
def _no_warning_of_its_import():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pytest.importorskip("x_transformers")


def build(decoder=True, **options):
    import x_transformers

    torch.manual_seed(0)
    kind = x_transformers.Decoder if decoder else x_transformers.Encoder
    layers = kind(dim=16, depth=2, heads=4, attn_dim_head=8, **options)
    return x_transformers.TransformerWrapper(num_tokens=TOKENS, max_seq_len=LENGTH, attn_layers=layers).eval()


FORMS = {
    "causal": (True, {}),
    "grouped": (True, {"attn_kv_heads": 2}),
    "one key head": (True, {"attn_kv_heads": 1}),
    "flash": (True, {"attn_flash": True}),
    "ALiBi": (True, {"alibi_pos_bias": True}),
    "QK norm": (True, {"attn_qk_norm": True}),
    "padded encoder": (False, {}),
    "padded, relative": (False, {"rel_pos_bias": True}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_converted_model_attends_by_sigmoid_with_its_bias(form):
    decoder, options = FORMS[form]
    model = build(decoder, **options).double()
    given = {} if decoder else {"mask": MASK}
    report = stabmon.convert(model)
    assert not report.kept
    attend = model.get_submodule(ATTEND)
    assert attend.sigmoid_bias == -math.log(LENGTH)
    seen = []
    attend.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((args, kwargs, out[0])), with_kwargs=True
    )
    model(X, **given)
    (q, k, v), kwargs, output = seen[0]
    k, v = (part.repeat(1, q.size(1) // part.size(1), 1, 1) for part in (k, v))
    scale = q.size(-1) ** -0.5 if attend.scale is None else attend.scale
    z = q @ k.mT * scale + attend.sigmoid_bias
    z = z if kwargs["attn_bias"] is None else z + kwargs["attn_bias"]
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if decoder else ~MASK[:, None, None]
    torch.testing.assert_close(output, z.sigmoid().masked_fill(hidden, 0) @ v, rtol=1e-10, atol=1e-12)


def test_everything_asked_for_is_added_and_undone():
    model = build()
    before, state = model(X), model.state_dict()
    report = stabmon.convert(model, bias="learnable", qk_norm=True, layer_scale=0.1, max_length=64)
    attend = model.get_submodule(ATTEND)
    assert torch.equal(attend.sigmoid_bias, torch.full((4,), -math.log(64)))
    model(X).square().mean().backward()
    assert all(parameter.grad is not None for parameter in attend.parameters())
    assert len(list(attend.parameters())) == 4
    report.undo()
    assert torch.equal(model(X), before)
    assert model.state_dict().keys() == state.keys()


def test_weights_of_another_form_are_kept_with_the_reason():
    with pytest.raises(ModelError, match=r"attend: x-transformers' Attend with softclamp_logits has weights of a form"):
        stabmon.convert(build(attn_softclamp_logits=True))


def test_its_own_sigmoid_keeps_its_numbers_until_a_fix_changes_the_bias():
    model = build(attn_sigmoid=True)
    before, module = model(X), model.get_submodule(ATTEND)
    assert edit.is_editable(module)
    assert edit.present_bias(module) == 0.0
    edit.set_bias(model, ATTEND, 0.0)
    torch.testing.assert_close(model(X), before)
    edit.learn_bias(model, ATTEND, -2.0)
    edit.add_qk_norm(model, ATTEND)
    edit.add_layer_scale(model, ATTEND, 0.1)
    model(X).square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    rows = stabmon.preflight(model.train(), X).rows
    assert [row.bias for row in rows] == [-2.0, 0.0]
