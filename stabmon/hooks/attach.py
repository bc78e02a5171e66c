"""Attachment of every hook to a model; the handles returned take them off again."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.amp import GradScaler

from stabmon.discover import Site
from stabmon.hooks.forward import EnterHook, LeaveHook, SigmoidObserver, SoftmaxHook, StreamHook
from stabmon.hooks.gradients import GradientNorms
from stabmon.hooks.recording import Recording
from stabmon.hooks.softmax import SoftmaxObserver
from stabmon.nn import SoftmaxAttention
from stabmon.stats import Slots

Handle = Any
"""Torch's handle of a hook: it has ``remove``."""


def attach(recording: Recording, sites: list[Site], observer: type[SigmoidObserver] = SigmoidObserver) -> list[Handle]:
    """Put forward hooks on ``sites`` and their blocks and branches; return the handles that take them off."""
    handles: list[Handle] = []
    blocks: set[str] = set()
    for site, slots in zip(sites, recording.plan.slots, strict=True):
        block = site.attention.block
        if block not in blocks:
            blocks.add(block)
            into = StreamHook(recording, f"{block or 'model'} (input)", slots["stream_in"])
            out = StreamHook(recording, f"{block or 'model'} (output)", slots["stream_out"])
            handles.append(site.surroundings.block.register_forward_pre_hook(into, with_kwargs=True))
            handles.append(site.surroundings.block.register_forward_hook(out, with_kwargs=True))
        branch = StreamHook(
            recording, site.attention.branch, slots["branch"], site.surroundings.gain, slots["layer_scale"]
        )
        handles.append(site.surroundings.branch.register_forward_hook(branch, with_kwargs=True))
        handles += _on_attention(recording, site, slots, observer)
    return handles


def _on_attention(recording: Recording, site: Site, slots: Slots, observer: type[SigmoidObserver]) -> list[Handle]:
    name, module = site.attention.module, site.module
    if isinstance(module, SoftmaxAttention):
        observer = SoftmaxObserver
    elif site.attention.kind == "softmax":
        return [module.register_forward_hook(SoftmaxHook(recording, name, slots), with_kwargs=True)]
    seen = observer(recording, name, slots)
    return [
        module.register_forward_pre_hook(EnterHook(seen)),
        module.register_forward_hook(LeaveHook(seen), always_call=True),
    ]


def gradient_norms(
    model: nn.Module,
    recording: Recording,
    sites: list[Site],
    scaler: GradScaler | None,
    began: Callable[[], None],
) -> GradientNorms:
    """Return the gradient norms of ``model``: one group a block, and one for all other parameters.

    ``began`` is called when the first gradient of a backward pass arrives.

    A parameter in nested blocks belongs to the innermost. Parameters whose gradients are spread over devices
    (DTensor) are left out: the norm of a local part would be wrong.
    """
    blocks = {site.attention.block: site.surroundings.block for site in sites}
    owners: dict[nn.Parameter, str | None] = dict.fromkeys(model.parameters())
    for name in sorted(blocks, key=lambda name: name.count(".")):
        owners.update(dict.fromkeys(blocks[name].parameters(), name))
    groups = {name: (recording.plan.block(name)["gradient_norm"], list[nn.Parameter]()) for name in blocks}
    rest = (recording.plan.of_run("other_gradient_norm"), list[nn.Parameter]())
    for parameter, owner in owners.items():
        if parameter.requires_grad and not hasattr(parameter, "placements"):
            (rest if owner is None else groups[owner])[1].append(parameter)
    return GradientNorms(recording, [*groups.values(), rest], scaler, began)
