"""The attentions of a model, in natural order, each with the modules that get hooks."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from torch import nn

from stabmon.discover import calls, heads, structure
from stabmon.errors import ModelError
from stabmon.names import natural_key, own_name
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention
from stabmon.records import Attention, ModelMap

Kind = Literal["sigmoid", "softmax", "functional"]
_NORMS = (("query_norm", "key_norm"), ("q_norm", "k_norm"), ("norm_q", "norm_k"))


class Site(NamedTuple):
    """One attention with its modules."""

    attention: Attention
    module: nn.Module
    surroundings: structure.Surroundings


def find(model: nn.Module, heads: Mapping[str, int] | None = None) -> ModelMap:
    """Return the map of ``model``: every attention that stabmon can read.

    Args:
        model: any module, also wrapped in DDP.
        heads: number of heads by module path, where a module's attributes do not say it.

    Raises:
        ModelError: no attention was found, a head count is unknown, or ``heads`` names no attention.
    """
    return map_of(model, sites(model, heads))


def map_of(model: nn.Module, found: list[Site]) -> ModelMap:
    """Return the map that the sites ``found`` in ``model`` make."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return ModelMap(attentions=tuple(site.attention for site in found), parameters=trainable)


def sites(model: nn.Module, given: Mapping[str, int] | None = None) -> list[Site]:
    """Return the attentions of ``model`` with their modules, as ``find`` does and with its errors."""
    given = {own_name(name): count for name, count in (given or {}).items()}
    found = [(own_name(name), name, module, kind) for name, module, kind in _attentions(model)]
    if not found:
        raise ModelError(_nothing(model))
    if unknown := sorted(given.keys() - {name for name, *_ in found}):
        known = ", ".join(name for name, *_ in found)
        raise ModelError(f"heads names {', '.join(unknown)}, which is no attention of this model; found: {known}")
    all_surroundings = [structure.surroundings(model, path) for _, path, _, _ in found]
    shared = Counter(surroundings.block_name for surroundings in all_surroundings)
    named = []
    for (name, _, module, kind), surroundings in zip(found, all_surroundings, strict=True):
        block = own_name(surroundings.block_name)
        layer = (block if shared[surroundings.block_name] == 1 and block else name) or "model"
        named.append(Site(_describe(module, kind, layer, name, surroundings, given), module, surroundings))
    return sorted(named, key=lambda site: natural_key(site.attention.layer))


def _attentions(model: nn.Module) -> Iterator[tuple[str, nn.Module, Kind]]:
    for name, module in model.named_modules():
        if isinstance(module, SigmoidAttention):
            yield name, module, "sigmoid"
        elif isinstance(module, SoftmaxAttention | nn.MultiheadAttention):
            yield name, module, "softmax"
        elif calls.calls_sigmoid_attention(module.__class__):
            yield name, module, "functional"


def _describe(
    module: nn.Module, kind: Kind, layer: str, name: str, surroundings: structure.Surroundings, given: Mapping[str, int]
) -> Attention:
    count = heads.count(module, name, given)
    post_norm = (
        getattr(surroundings.block, "attention_post_norm", None) if isinstance(surroundings.block, Block) else None
    )
    position = getattr(module, "position", None)
    causal = getattr(module, "is_causal", None)
    return Attention(
        layer=layer,
        module=name,
        block=own_name(surroundings.block_name),
        branch=own_name(surroundings.branch_name),
        kind=kind,
        heads=count,
        head_dim=heads.width(module, name, count),
        max_length=getattr(module, "max_length", None) if kind == "sigmoid" else None,
        is_causal=causal if isinstance(causal, bool) else None,
        bias=_bias(module) if isinstance(module, SigmoidAttention) else None,
        position=position if position in ("rope", "alibi") else None,
        qk_norm=_has_qk_norm(module),
        hybrid_norm=_acts(post_norm),
        layer_scale=surroundings.gain is not None,
    )


def _bias(module: SigmoidAttention) -> float | Literal["learnable"] | None:
    bias = module.bias
    if isinstance(bias, nn.Parameter):
        return "learnable"
    values = set(bias.tolist()) if not bias.is_meta else set()
    return values.pop() if len(values) == 1 else None


def _has_qk_norm(module: nn.Module) -> bool:
    return any(all(_acts(getattr(module, name, None)) for name in pair) for pair in _NORMS)


def _acts(norm: object) -> bool:
    return isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity)


def _nothing(model: nn.Module) -> str:
    return (
        f"found no attention in {type(model).__name__}: looked for stabmon.nn.SigmoidAttention and SoftmaxAttention, "
        "torch.nn.MultiheadAttention, and modules whose own methods call stabmon.kernels.sigmoid_attention; "
        "let the attention module call sigmoid_attention, or pass the part of the model that does"
    )
