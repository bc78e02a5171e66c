"""Records of the attentions that a pass showed, and the places where hooks read their residual blocks."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from torch import nn

from stabmon.conversion import edit
from stabmon.discover.call import AttentionCall
from stabmon.discover.points import Point, Points
from stabmon.discover.site import Found, Site, Surroundings
from stabmon.discover.structure import block_name, common, depth, is_in
from stabmon.names import own_name, span
from stabmon.nn import SigmoidAttention
from stabmon.nn.self_attention import SelfAttention
from stabmon.records import Attention, Unknown


def describe(
    model: nn.Module, called: nn.Module, seen: Sequence[AttentionCall], points: Points, notes: Sequence[str] = ()
) -> Found:
    """Return the sites of the calls ``seen`` in a pass through ``called``, with ``notes`` and what is missing."""
    blocks = [_block(model, one) for one in seen]
    calls = Counter(id(one.module) for one in seen)
    shared = Counter(blocks)
    sites = []
    index: Counter[int] = Counter()
    reasons: dict[str, list[str]] = {}
    for one, block in zip(seen, blocks, strict=True):
        around = _surroundings(model, one, block, points)
        call, index[id(one.module)] = index[id(one.module)], index[id(one.module)] + 1
        name = own_name(one.module_name) + (f"[{call}]" if calls[id(one.module)] > 1 else "")
        layer = (own_name(block) if shared[block] == 1 and block else name) or "model"
        attention = _attention(one, layer, block, around)
        for reason in _reasons(attention, one):
            reasons.setdefault(reason, []).append(layer)
        sites.append(Site(attention, called, one.module, around))
    said = [f"{span(layers)}: {reason}" for reason, layers in reasons.items()]
    return Found(tuple(sites), (*notes, *said), max((one.keys for one in seen), default=0))


def _block(model: nn.Module, seen: AttentionCall) -> str:
    """Return the path of the residual block: the module of a list that holds attention and addition, or the nearest."""
    if seen.added_in is None:
        parent = seen.stack[-2] if len(seen.stack) > 1 else seen.module_name.rpartition(".")[0]
        return block_name(model, seen.module_name) or block_name(model, parent) or parent
    ran = [one for one, other in zip(seen.stack, seen.added_in, strict=False) if one == other][-1]
    held = max(ran, common(seen.module_name, seen.added_in[-1]), key=depth)
    return block_name(model, held) or held


def _surroundings(model: nn.Module, seen: AttentionCall, block: str, points: Points) -> Surroundings:
    stream, branch = _stream(seen, block), _branch(seen, points)
    stream, branch = (
        None if point is None else point._replace(calls=points.calls[point.module]) for point in (stream, branch)
    )
    return Surroundings(_that_returns(model, seen, block, points), stream, branch, seen.branch_is_output, seen.gain)


def _that_returns(model: nn.Module, seen: AttentionCall, block: str, points: Points) -> nn.Module | None:
    """Return the module whose output is the block's: the block, or of a list that does not run the last, if it adds."""
    module = model.get_submodule(block)
    if module in points.calls:
        return module
    last = [*module.children()][-1:]
    return last[0] if seen.added_in and [model.get_submodule(seen.added_in[-1])] == last else None


def _stream(seen: AttentionCall, block: str) -> Point | None:
    """Return where the stream is read: the latest input of the block or of a part of it, else the latest output."""
    inputs = [point for point in seen.stream if point.side == "input" and is_in(point.name, block)]
    plain = [point for point in inputs if len(point.path) == 2]  # no element of a list
    outputs = [point for point in seen.stream if point.side == "output"]
    return _last(plain or inputs or outputs)


def _branch(seen: AttentionCall, points: Points) -> Point | None:
    """Return where the branch is read: the latest output that it was, of a module called once where there is one."""
    outputs = [point for point in seen.branch if point.side == "output"]
    once = [point for point in outputs if points.calls[point.module] == 1]
    return _last(once or outputs)


def _last(points: Sequence[Point]) -> Point | None:
    return points[-1] if points else None


def _attention(seen: AttentionCall, layer: str, block: str, around: Surroundings) -> Attention:
    module = seen.module
    position = getattr(module, "position", None)
    return Attention(
        layer=layer,
        module=own_name(seen.module_name),
        block=own_name(block),
        branch=own_name(seen.module_name if around.branch is None else around.branch.name)
        if _has_branch(around)
        else None,
        kind=_kind(seen),
        door=seen.door,
        heads=seen.heads,
        head_dim=seen.head_dim,
        max_length=module.max_length if isinstance(module, SigmoidAttention) else None,
        is_causal=module.is_causal if isinstance(module, SelfAttention) else seen.is_causal,
        bias="learnable" if isinstance(getattr(module, "bias", None), nn.Parameter) and _is_ours(seen) else seen.bias,
        position="alibi" if seen.alibi else position if position in ("rope", "alibi") else None,
        qk_norm=seen.qk_norm,
        hybrid_norm=seen.hybrid_norm,
        layer_scale=seen.gain is not None,
        editable=edit.is_editable(module),
        unknown=_unknown(around),
    )


def _kind(seen: AttentionCall) -> Literal["sigmoid", "softmax", "functional"]:
    if seen.kind == "softmax":
        return "softmax"
    return "sigmoid" if _is_ours(seen) else "functional"


def _is_ours(seen: AttentionCall) -> bool:
    return isinstance(seen.module, SigmoidAttention)


def _has_branch(around: Surroundings) -> bool:
    return around.branch is not None or around.branch_is_output


def _unknown(around: Surroundings) -> tuple[Unknown, ...]:
    known: dict[Unknown, bool] = {
        "stream": around.stream is not None,
        "branch": _has_branch(around),
        "block": around.block is not None,
    }
    return tuple(part for part, is_known in known.items() if not is_known)


def _reasons(attention: Attention, seen: AttentionCall) -> list[str]:
    """Return why the branch ratio and block growth of ``attention`` are missing."""
    if seen.added_in is None:
        return ["branch ratio and block growth are missing: its output joins no residual stream that can be recognised"]
    reasons: dict[Unknown, str] = {
        "stream": "branch ratio and block growth are missing: the stream that it joins is no module's input or output",
        "branch": "branch ratio is missing: its branch, as it is added, is no module's output",
        "block": "block growth is missing: the block around it is a list of modules, which has no output",
    }
    return [reasons[part] for part in attention.unknown]
