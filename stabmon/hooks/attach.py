"""Attachment of every hook to a model; the handles returned take them off again."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import nn
from torch.amp import GradScaler

from stabmon import doors
from stabmon.discover import Site
from stabmon.discover.points import Point
from stabmon.distributed.shards import Stored
from stabmon.hooks.forward import CallObserver, EnterHook, LeaveHook, MultiheadHook, Unseen
from stabmon.hooks.gradients import GradientNorms, Groups
from stabmon.hooks.hook import PassHook, Turn
from stabmon.hooks.keys import rekeyed
from stabmon.hooks.recording import Recording
from stabmon.hooks.streams import GainHook, OutputHook, StreamHook
from stabmon.names import own_name
from stabmon.stats import Slots
from stabmon.stats.multihead import is_multihead

Handle = Any
"""Torch's handle of a hook: it has ``remove``."""


class _Doors:
    """A handle that keeps the doors open until it is removed."""

    def __init__(self) -> None:
        doors.open_all()
        self._is_open = True

    def remove(self) -> None:
        """Close them."""
        if self._is_open:
            self._is_open = False
            doors.close_all()


def attach(recording: Recording, sites: Sequence[Site], observer: type[CallObserver] = CallObserver) -> list[Handle]:
    """Put forward hooks on ``sites`` and around them, and open the doors; return the handles that undo it."""
    handles: list[Handle] = [_Doors()]
    turns: list[Turn | None] = []
    pairs = list(zip(sites, recording.plan.slots, strict=True))
    hooked = [_on_attention(recording, together, observer) for together in _by_module(pairs)]
    hooked += [_on_surroundings(recording, site, slots) for site, slots in pairs]
    for one in hooked:
        handles += one.handles
        turns += one.turns
    handles += _on_blocks(recording, pairs)
    counted = [turn for turn in turns if turn is not None]
    if counted:
        roots = {id(site.root): site.root for site in sites}
        handles += [rekeyed(root.register_forward_pre_hook(PassHook(recording, counted))) for root in roots.values()]
    return handles


class _Hooked(NamedTuple):
    handles: list[Handle]
    turns: list[Turn | None]


_Pair = tuple[Site, Slots]


def _by_module(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    groups: dict[int, list[_Pair]] = {}
    for site, slots in pairs:
        groups.setdefault(id(site.module), []).append((site, slots))
    return list(groups.values())


def _on_attention(recording: Recording, pairs: list[_Pair], observer: type[CallObserver]) -> _Hooked:
    """Put hooks on the module that the sites of ``pairs`` share."""
    module, name, slots = pairs[0][0].module, pairs[0][0].attention.module, [slots for _, slots in pairs]
    turns: list[Turn | None] = []
    handles: list[Handle] = []
    if is_multihead(module):
        observer, hook = Unseen, MultiheadHook(recording, name, slots)
        turns.append(hook.turn)
        handles.append(rekeyed(module.register_forward_hook(hook, with_kwargs=True)))
    around = [site.surroundings for site, _ in pairs]
    seen = observer(recording, name, slots, [one.branch is None and one.branch_is_output for one in around])
    handles += [
        rekeyed(module.register_forward_pre_hook(EnterHook(seen))),
        rekeyed(module.register_forward_hook(LeaveHook(seen), always_call=True)),
    ]
    return _Hooked(handles, [*turns, seen.turn])


def _on_surroundings(recording: Recording, site: Site, slots: Slots) -> _Hooked:
    around, layer = site.surroundings, site.attention.layer
    hooked = [
        _on_point(recording, f"{layer} ({what})", point, slots, raw)
        for what, point, raw in (("stream", around.stream, "stream_in"), ("branch", around.branch, "branch"))
        if point is not None
    ]
    handles, turns = [handle for handle, _ in hooked], [turn for _, turn in hooked]
    if around.gain is not None:
        gain = GainHook(recording, f"{layer} (LayerScale)", around.gain, slots)
        handles.append(rekeyed(site.module.register_forward_hook(gain)))
    return _Hooked(handles, turns)


def _on_point(recording: Recording, name: str, point: Point, slots: Slots, raw: str) -> tuple[Handle, Turn | None]:
    turn = Turn() if point.calls > 1 else None
    hook = StreamHook(recording, name, slots, raw, point, turn)
    if point.side == "input":
        return rekeyed(point.module.register_forward_pre_hook(hook, with_kwargs=True)), turn
    return rekeyed(point.module.register_forward_hook(hook, with_kwargs=True)), turn


def _on_blocks(recording: Recording, pairs: Sequence[_Pair]) -> list[Handle]:
    """Put a hook on the output of each block that an attention's stream runs through."""
    blocks = {site.attention.block: (site.surroundings, slots) for site, slots in pairs}
    return [
        rekeyed(around.block.register_forward_hook(OutputHook(recording, f"{name or 'model'} (output)", slots)))
        for name, (around, slots) in blocks.items()
        if around.block is not None and around.stream is not None
    ]


def gradient_norms(
    model: nn.Module,
    recording: Recording,
    sites: Sequence[Site],
    scaler: GradScaler | None,
    began: Callable[[], None],
) -> GradientNorms:
    """Return the gradient norms of ``model``: one group a block, and one for all other parameters.

    ``began`` is called when the first gradient of a backward pass arrives.
    """
    return GradientNorms(recording, model, partial(_groups, model, recording, sites), scaler, began)


def _groups(model: nn.Module, recording: Recording, sites: Sequence[Site], stored: Stored) -> Groups:
    """Return the parameters that train now, as they are stored: those of each block, and all others.

    A parameter in nested blocks belongs to the innermost.
    """
    modules = {own_name(name): module for name, module in model.named_modules()}
    blocks = {site.attention.block: modules[site.attention.block] for site in sites}
    owners: dict[nn.Parameter, str | None] = dict.fromkeys(stored.of(model))
    for name in sorted(blocks, key=lambda name: name.count(".")):
        owners.update(dict.fromkeys(stored.of(blocks[name]), name))
    groups = {name: (recording.plan.block(name)["gradient_norm"], list[nn.Parameter]()) for name in blocks}
    rest = (recording.plan.of_run("other_gradient_norm"), list[nn.Parameter]())
    for parameter, owner in owners.items():
        if parameter.requires_grad:
            (rest if owner is None else groups[owner])[1].append(parameter)
    if joined := [name for name, (_, own) in groups.items() if not own and set(stored.flat) & set(rest[1])]:
        what = f"FSDP joins parameters of {len(joined)} layers with others"
        advice = "only the total is recorded; wrap each block by itself, or pass use_orig_params=True"
        recording.failures.report("gradient norms of layers", what, advice)
    return [*groups.values(), rest]
