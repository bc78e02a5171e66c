"""Skipped without timm; see ``tests/with_timm.py``."""

import math
from typing import Any

import pytest
import torch
from torch import nn

import stabmon
import tests.with_timm  # noqa: F401 finds timm
from stabmon import preflight
from stabmon.errors import ModelError
from stabmon.fixes import bias_fix, layer_scale_fix

timm = pytest.importorskip("timm")

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _model(name: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 4, "patch_size": 8}
    return timm.create_model(name, **{**sizes, **options})


def _plain(attention: Any, x: torch.Tensor, bias: float) -> torch.Tensor:
    """Return what timm's ``Attention`` computes with sigmoid weights, in float64."""
    q, k, v = attention.qkv(x).double().view(*x.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = (q @ k.transpose(2, 3) * attention.scale + bias).sigmoid() @ v
    return attention.proj(mixed.transpose(1, 2).flatten(2).float())


@pytest.mark.parametrize("fused", [True, False])
def test_attention_over_the_patches_and_the_class_token_is_sigmoid(fused: bool) -> None:
    model = _model()
    for block in model.blocks:
        block.attn.fused_attn = fused
    before = model(IMAGES)
    report = stabmon.convert(model)
    assert [done.module for done in report.converted] == ["blocks.0.attn", "blocks.1.attn"]
    x = torch.randn(2, 17, 32)
    torch.testing.assert_close(model.blocks[0].attn(x), _plain(model.blocks[0].attn, x, -math.log(17)))
    report.undo()
    assert torch.equal(model(IMAGES), before)
    assert model.blocks[0].attn.fused_attn is fused


def test_additions_learn() -> None:
    model = _model()
    stabmon.convert(model, bias="learnable", qk_norm=True, layer_scale=0.1)
    nn.functional.cross_entropy(model(IMAGES), torch.tensor([0, 1])).backward()
    added = [value.grad for name, value in model.named_parameters() if "sigmoid_" in name]
    assert len(added) == 8
    assert all(gradient.any() for gradient in added)


def test_attention_within_windows_takes_the_windows_length() -> None:
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=4, **sizes)
    report = stabmon.convert(model)
    assert {done.bias for done in report.converted} == {"-2.77"}
    assert model(IMAGES).isfinite().all()


def test_attention_over_channels_is_kept() -> None:
    sizes = {"img_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 4}
    model = timm.create_model("xcit_nano_12_p16_224", num_classes=4, **sizes)
    report = stabmon.convert(model, max_length=5)
    assert ("blocks.0.attn", "it attends over channels and not over tokens") in report.kept
    assert "cls_attn_blocks.0.attn" in {done.module for done in report.converted}


def test_attention_that_pools_its_keys_needs_a_length() -> None:
    model = timm.create_model("pvt_v2_b0", num_classes=4, depths=(1, 1, 1, 1))
    with pytest.raises(ModelError, match="its longest training length is unknown"):
        stabmon.convert(model)


@pytest.mark.parametrize("make", [bias_fix, layer_scale_fix])
def test_a_fix_changes_a_converted_attention_as_a_conversion_with_it_does(make: Any) -> None:
    model, other = _model().eval(), _model().eval()
    stabmon.convert(model, bias=-2.0)
    for attention in preflight(model, IMAGES).map.attentions:
        make(attention, -0.5, "why").apply(model)
    stabmon.convert(other, **({"bias": -0.5} if make is bias_fix else {"bias": -2.0, "layer_scale": -0.5}))
    assert torch.equal(model(IMAGES), other(IMAGES))
