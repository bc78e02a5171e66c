"""The buffers of all processes put together, each raw input by the reduction that its declaration states.

Processes that see other rows (data parallel) add to the same elements. Under tensor parallelism each has heads of its
own, which are placed beside each other. Under pipeline parallelism each has layers of its own.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stabmon.distributed.own import Own
from stabmon.metrics import RAW, OverProcesses, Per, Raw
from stabmon.records import Attention, ModelMap
from stabmon.series import MISSING, Floats, is_missing
from stabmon.stats import Plan

Index = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]
Stack = npt.NDArray[np.float32]
"""The buffers of all ranks, each element where it is in the merged one, [ranks, plan.width]."""

DIFFERENT = 1e-3
"""Relative difference of replicated gradients' norms above which they are said to be different."""


class Merge:
    """Merges one sample's buffers.

    plan: that of the merged buffer.
    map: the attentions of all processes.
    width: elements of the largest buffer of a process.
    fault: what is wrong with the latest sample, or None.
    """

    def __init__(self, owns: Sequence[Own]) -> None:
        attentions = tuple(_whole(owns).values())
        logged = tuple(dict.fromkeys(name for own in owns for name in own.logged))
        self.plan = Plan(attentions, logged, optimizer=any(own.optimizer for own in owns), distributed=True)
        self.map = ModelMap(attentions=attentions, parameters=_parameters(owns))
        self.fault: str | None = None
        plans = [Plan(own.attentions, own.logged, optimizer=own.optimizer) for own in owns]
        self.width = max(plan.width for plan in plans)
        self._at = [_places(own, plan, self.plan) for own, plan in zip(owns, plans, strict=True)]
        self._weights = np.stack([_weights(own, self.plan) for own in owns])
        self._norms = _norms(self.plan)
        self._means = np.setdiff1d(np.arange(self.plan.maxima.stop, self.plan.width), self._norms)
        self._holds = np.stack([np.isin(self._norms, target) for _, target in self._at])
        other = self.plan.of_run("other_gradient_norm").start
        self._other = int(np.flatnonzero(self._norms == other)[0])
        self._holds[:, self._other] = [bool(own.others) for own in owns]
        kinds = sorted({own.others for own in owns})
        self._stages = [[rank for rank, own in enumerate(owns) if own.others == kind] for kind in kinds]
        self._sharded = any(own.sharded for own in owns)

    def __call__(self, buffers: Sequence[Floats]) -> Floats:
        """Return the merged buffer [plan.width] of the buffers of all ranks, each at least as wide as its own plan."""
        stack = np.tile(self.plan.initial, (len(buffers), 1))
        for row, buffer, (source, target) in zip(stack, buffers, self._at, strict=True):
            row[target] = buffer[source]
        whole, self.fault = self.plan.initial.copy(), None
        sums, maxima = self.plan.sums, self.plan.maxima
        with np.errstate(all="ignore"):
            whole[sums] = (stack[:, sums].astype(np.float64) * self._weights).sum(0)
            whole[maxima] = stack[:, maxima].max(0)
            whole[self._means] = _mean(stack[:, self._means], 1)
            whole[self._norms] = self._of_norms(stack[:, self._norms])
        self._put_ranks(whole, stack)
        return whole

    def _of_norms(self, given: Stack) -> Floats:
        """Return the root mean square over the ranks that hold a part; where one of them is missing, all are."""
        norms = _mean(given, 2)
        norms[self._other] = self._of_others(given[:, self._other])
        absent = is_missing(given) & self._holds
        incomplete = absent.any(0) & ~is_missing(given).all(0)
        if self._sharded and incomplete.any():
            rank = int(np.flatnonzero(absent[:, incomplete].any(1))[0])
            self.fault = f"rank {rank} measured no gradient norm of its shards: those of the whole are missing"
            return np.where(incomplete, MISSING, norms)
        if not self._sharded and len(self._stages) == 1:
            self.fault = _difference(given)
        return norms

    def _of_others(self, given: Floats) -> np.float32:
        """Return the norm of what is outside of blocks: of each pipeline stage its own, all together."""
        of_stages = np.concatenate([_mean(given[ranks, None], 2) for ranks in self._stages])
        known = of_stages[~is_missing(of_stages)].astype(np.float64)
        return np.float32(np.sqrt((known**2).sum())) if len(known) else MISSING

    def _put_ranks(self, whole: Floats, stack: Stack) -> None:
        """Put in the rank of each attention's largest logit, and the ranks with numbers that are not finite."""
        for slots in self.plan.slots:
            largest = stack[:, slots["logit_max"]].max(1)
            if largest.max() != -np.inf:
                whole[slots["logit_max_rank"]] = largest.argmax()  # of a NaN, where there is one
        forward = np.setdiff1d(np.arange(self.plan.width), self._norms)
        changed = stack[:, forward].view(np.uint32) != self.plan.initial[forward].view(np.uint32)
        ranks = np.flatnonzero((changed & ~np.isfinite(stack[:, forward])).any(1))
        if len(ranks):
            whole[self.plan.of_run("non_finite_rank")] = ranks[0]
        whole[self.plan.of_run("non_finite_ranks")] = len(ranks)


def _whole(owns: Sequence[Own]) -> dict[str, Attention]:
    """Return the attentions of all processes by layer, each with all its heads."""
    found: dict[str, Attention] = {}
    for own in owns:
        for attention, (_, parts) in zip(own.attentions, own.heads, strict=True):
            whole = attention.model_copy(update={"heads": attention.heads * parts})
            found.setdefault(attention.layer, whole)
    return found


def _parameters(owns: Sequence[Own]) -> int:
    """Return the number of trainable parameters, those of each pipeline stage once."""
    stages = {tuple(attention.layer for attention in own.attentions): own.parameters for own in owns}
    return sum(stages.values())


def _places(own: Own, plan: Plan, whole: Plan) -> tuple[Index, Index]:
    """Return which elements of a process's buffer are in the merged one, and where."""
    pairs = list(_pairs(own, plan, whole))
    return np.concatenate([at for at, _ in pairs]), np.concatenate([to for _, to in pairs])


def _pairs(own: Own, plan: Plan, whole: Plan) -> Iterator[tuple[Index, Index]]:
    layers = [attention.layer for attention in whole.attentions]
    for raw in RAW.values():
        if raw.per is Per.RUN:
            yield _range(plan.of_run(raw.name)), _range(whole.of_run(raw.name))
            continue
        for attention, slots, (part, _) in zip(own.attentions, plan.slots, own.heads, strict=True):
            at, to = _range(slots[raw.name]), _range(whole.slots[layers.index(attention.layer)][raw.name])
            first = part * len(at) if raw.per is Per.HEAD else 0
            yield at, to[first : first + len(at)]
    for name, at_logged in plan.logged.items():
        yield _range(at_logged), _range(whole.logged[name])


def _weights(own: Own, whole: Plan) -> Doubles:
    """Return the weight of each sum: processes with other heads of one attention count its sequences all."""
    weights = np.ones(whole.sums.stop)
    layers = [attention.layer for attention in whole.attentions]
    for attention, (_, parts) in zip(own.attentions, own.heads, strict=True):
        for raw in RAW.values():
            at = None if raw.per in (Per.RUN, Per.HEAD) else whole.slots[layers.index(attention.layer)][raw.name]
            if at is not None and at.stop <= whole.sums.stop:
                weights[at] = 1 / parts
    return weights[whole.sums]


def _norms(plan: Plan) -> Index:
    """Return where the merged buffer holds norms that each process estimates from its own shards."""
    of_run = [plan.of_run(raw.name) for raw in RAW.values() if raw.per is Per.RUN and _is_norm(raw)]
    names = [raw.name for raw in RAW.values() if raw.per is not Per.RUN and _is_norm(raw)]
    of_attentions = [slots[name] for slots in plan.slots for name in names]
    return np.unique(np.concatenate([_range(at) for at in (*of_run, *of_attentions)]))


def _is_norm(raw: Raw) -> bool:
    return raw.over_processes is OverProcesses.ROOT_MEAN_SQUARE


def _range(at: slice) -> Index:
    return np.arange(at.start, at.stop)


def _mean(given: Stack, power: int) -> Floats:
    """Return the power mean of ``given`` [ranks, elements] over the ranks that measured it, [elements]."""
    measured = ~is_missing(given)
    mean = np.where(measured, given.astype(np.float64) ** power, 0.0).sum(0) / measured.sum(0)
    narrow = (mean if power == 1 else np.sqrt(mean)).astype(np.float32)
    return np.where(measured.any(0), narrow, MISSING)


def _difference(given: Stack) -> str | None:
    """Return what is wrong where replicated gradients differ between ranks, or None."""
    spread = given.max(0) - given.min(0)
    apart = np.flatnonzero(spread > DIFFERENT * given.max(0))  # of numbers that are not finite, none
    if not len(apart):
        return None
    low, high = given[:, apart[0]].min(), given[:, apart[0]].max()
    return (
        f"gradients differ between ranks when the backward pass ends, a norm is {low:.4g} to {high:.4g}: they are "
        "averaged later, or not at all; the root mean square over ranks is recorded"
    )
