"""Parameters as they are stored where a model is sharded, and the part of a norm that this process holds.

Every process estimates the squared norm of a parameter as that of its own shard times the number of shards. The mean of
the estimates over all processes that hold a shard is the squared norm itself, whether it is sharded (FSDP, tensor
parallel), replicated (DDP) or both (HSDP): each shard is held equally often.
"""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stabmon.distributed.process import processes
from stabmon.errors import ModelError


class Part(NamedTuple):
    """A process's part of a tensor that is split into ``shards`` equal ones, or the whole where that is 1."""

    tensor: Tensor
    shards: int


class Stored:
    """The parameters of ``model`` as they are stored: shards, also while FSDP has whole ones in their place.

    flat: FSDP1's parameters that several modules' are joined in, without ``use_orig_params``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.flat: list[nn.Parameter] = []
        self._instead: dict[int, dict[str, nn.Parameter]] = {}
        self._shards: dict[int, int] = {}
        self._fsdp_dims: dict[int, tuple[str, ...]] = {}
        for module in fsdp_modules(model):
            for group in _groups2(module):
                for one in group.fsdp_params:
                    info = one._module_info
                    self._put(info.module, info.param_name, one.sharded_param)
                    self._fsdp_dims[id(one.sharded_param)] = tuple(one.mesh_info.mesh.mesh_dim_names or ())
            handle = getattr(module, "_handle", None)
            if handle is not None:
                self._add_handle(handle)

    def of(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the parameters of a part of the model, each once."""
        found: dict[nn.Parameter, None] = {}
        for part in module.modules():
            instead = self._instead.get(id(part), {})
            for name, parameter in (part._parameters | instead).items() if instead else part._parameters.items():
                if parameter is not None:
                    found[instead.get(name, parameter)] = None
        return list(found)

    @property
    def sharded(self) -> bool:
        """Other processes hold other parts of a parameter."""
        return any(self.is_sharded(parameter) for parameter in self.of(self._model))

    def part(self, parameter: nn.Parameter) -> Part | None:
        """Return this process's part of the gradient of ``parameter``, or None without one.

        Raises:
            ModelError: the gradient is a summand of the whole one, which no process holds.
        """
        gradient = parameter.grad
        if gradient is None:
            held_elsewhere = parameter.numel() == 0 and id(parameter) in self._shards
            return Part(parameter.detach(), self._shards[id(parameter)]) if held_elsewhere else None
        gradient = gradient.detach() if gradient.requires_grad else gradient
        if not is_dtensor(gradient):
            return Part(gradient, self._shards.get(id(parameter), 1))
        placements: Any = gradient.placements  # type: ignore[attr-defined]
        if any(one.is_partial() for one in placements):
            raise ModelError(
                f"a gradient of shape {list(gradient.shape)} is partial: its sum is not known to a process"
            )
        sizes = gradient.device_mesh.shape  # type: ignore[attr-defined]
        return Part(gradient.to_local(), _product(sizes, placements))  # type: ignore[attr-defined]

    def is_sharded(self, parameter: nn.Parameter) -> bool:
        """Return whether other processes hold other parts of ``parameter``."""
        if is_dtensor(parameter):
            return _product(parameter.device_mesh.shape, parameter.placements) > 1  # type: ignore[attr-defined]
        return self._shards.get(id(parameter), 1) > 1

    def heads(self, attention: nn.Module) -> tuple[int, int]:
        """Return which part of an attention's heads this process has, and of how many: (0, 1) for all of them.

        Tensor parallelism splits the features that a projection gives, and with them the heads.
        """
        for parameter in self.of(attention):
            if is_dtensor(parameter) and parameter.dim() == 2:
                at, parts = 0, 1
                mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
                names = mesh.mesh_dim_names or ("",) * mesh.ndim
                of_fsdp = self._fsdp_dims.get(id(parameter))
                if of_fsdp is not None and mesh.ndim == 1:
                    continue
                for dim, placement in enumerate(parameter.placements):  # type: ignore[attr-defined]
                    if placement.is_shard(0) and names[dim] not in (of_fsdp or ()):
                        at, parts = at * mesh.size(dim) + mesh.get_local_rank(dim), parts * mesh.size(dim)
                if parts > 1:
                    return at, parts
        return 0, 1

    def _put(self, module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        self._instead.setdefault(id(module), {})[name] = parameter

    def _add_handle(self, handle: Any) -> None:
        """Note what FSDP1 has joined."""
        flat = handle.flat_param
        shards = handle.process_group.size() if handle.uses_sharded_strategy else 1
        self._shards[id(flat)] = shards
        if not handle._use_orig_params:
            self.flat.append(flat)
            return
        for parameter, info in zip(flat._params, flat._param_infos, strict=True):
            self._put(info.module, info.param_name, parameter)
            self._shards[id(parameter)] = shards


def fsdp_modules(model: nn.Module) -> list[Any]:
    """Return the modules of ``model`` that FSDP1 or FSDP2 shards; loads neither, which takes a second."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = tuple(
        kind for name in ("FSDPModule", "FullyShardedDataParallel") if (kind := getattr(fsdp, name, None)) is not None
    )
    return [module for module in model.modules() if isinstance(module, kinds)] if kinds else []


def waits_for_others(model: nn.Module) -> bool:
    """Return whether a pass of ``model`` waits for the same pass in other processes."""
    if processes() == 1:
        return False
    return Stored(model).sharded or any(
        isinstance(part, DistributedDataParallel | nn.SyncBatchNorm) for part in model.modules()
    )


def is_dtensor(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is spread over a device mesh."""
    return hasattr(tensor, "placements") and hasattr(tensor, "device_mesh")


def _groups2(module: Any) -> Iterator[Any]:
    """Yield FSDP2's groups of parameters that ``module`` manages."""
    state: Any = module._get_fsdp_state() if hasattr(module, "_get_fsdp_state") else None
    if hasattr(state, "_fsdp_param_groups"):
        yield from state._fsdp_param_groups
    elif (group := getattr(state, "_fsdp_param_group", None)) is not None:
        yield group


def _product(sizes: Any, placements: Any) -> int:
    shards = 1
    for size, placement in zip(sizes, placements, strict=True):
        shards *= 1 if placement.is_replicate() else size
    return shards
