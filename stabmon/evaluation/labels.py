"""Labels of runs as failed or healthy, by their outcome and by nothing else.

A run failed where a loss was not finite, where it ended above its own start, or where its final loss is worse than that
of the best configuration of the same workload, size, length of training and learning rate by more than the margin; the
two are compared on the same seed, and so on the same data. Where a run is evaluated on longer input, that loss is held
to the best validation loss of the group in the same way. The margin is ``SPREADS`` times the spread between replicates
of the workload, and at least ``SHARE`` of what the best has learnt beyond frequencies.

Where the second of the two is the larger, there is a middle: a run that is worse by more than replicates differ and by
less than the margin has lost something, and sound designs that learn more slowly lose as much. Its outcome does not say
whether it failed: it is undecided.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite, log
from statistics import mean, median
from typing import Literal

from stabmon.divergence import diverged
from stabmon.evaluation.outcome import Outcome
from stabmon.records import Record

SPREADS = 4.0
"""Robust standard deviations between replicates that two healthy runs may differ by."""
SHARE = 0.2
"""Share of what the best has learnt that two healthy runs may differ by, because designs differ by more than seeds do.

Where attention is sound, softmax, QK norm, hybrid norm and b = -log n end within this of one another, mostly.
"""
FREQUENCIES = {"language": 3.30, "vision": log(10), "speech": log(9)}
"""Loss of knowing nothing but how frequent each byte, digit or speaker is, nats."""

Why = Literal["healthy", "undecided", "not finite", "diverged", "worse", "worse on longer input"]


class Reference(Record):
    """The reference of a group of runs: its best configuration."""

    configuration: str
    loss: float
    """Mean final loss of its replicates."""
    by_seed: dict[int, float]
    """Final loss of each replicate."""
    names: tuple[str, ...]
    """Its replicates."""
    noise: float
    """Difference that two replicates may have."""
    margin: float
    """Difference that two sound runs may have; at least ``noise``."""
    context: int
    """Length that its runs were trained at, as ``model.context`` counts it; one with a fix may train at another."""
    validation: float | None
    """Lowest validation loss of the group, or None where no run has one."""


class Label(Record):
    """Outcome of a run."""

    why: Why
    loss: float
    reference: Reference | None
    """None where no run of the group ended with a finite loss."""

    @property
    def failed(self) -> bool:
        """True if a monitor should flag the run."""
        return self.why not in ("healthy", "undecided")

    @property
    def decided(self) -> bool:
        """True if the outcome is a clear failure or clearly healthy."""
        return self.why != "undecided"


def broke(run: Outcome) -> bool:
    """Return whether a run ended without a loss to compare: not finite, or above its own start."""
    return _broken(run) is not None


def spreads(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, float]:
    """Return each workload's spread between replicates; ``outcomes`` are the replicates of each configuration.

    That is the robust standard deviation, 1.4826 times the median absolute deviation, of what a replicate loses to the
    best configuration of its group on the same seed, about the mean of its own configuration. Only the better half of
    each group counts, without the best itself: how a training fails is left to chance.
    """
    away: dict[str, list[float]] = defaultdict(list)
    for members in _groups(outcomes).values():
        finals = _finals(members)
        ranked = sorted(finals, key=lambda name: finals[name])
        usual = {run.seed: run.final_loss for run in members[ranked[0]]} if ranked else {}
        for name in ranked[1 : (len(members) + 1) // 2]:
            behind = [run.final_loss - usual[run.seed] for run in members[name] if run.seed in usual]
            if len(behind) > 1:
                correction = (len(behind) / (len(behind) - 1)) ** 0.5
                away[members[name][0].run_config.workload] += [abs(x - mean(behind)) * correction for x in behind]
    return {workload: 1.4826 * median(values) for workload, values in away.items()}


def references(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Reference]:
    """Return what each group is held to; ``outcomes`` are the replicates of each configuration."""
    spread, found = spreads(outcomes), {}
    for group, members in _groups(outcomes).items():
        best = _best(members)
        if best is not None:
            found[group] = _reference(best, members, spread)
    return found


def label(run: Outcome, reference: Reference | None) -> Label:
    """Return how ``run`` ended, beside the reference of its group."""
    why: Why = "healthy"
    broken = _broken(run)
    if broken is not None:
        why = broken
    elif reference is not None and run.final_loss > _usual(run, reference) + reference.margin:
        why = "worse"
    elif reference is not None and _worse_on_longer_input(run, reference, reference.margin):
        why = "worse on longer input"
    elif reference is not None and (
        run.final_loss > _usual(run, reference) + reference.noise
        or _worse_on_longer_input(run, reference, reference.noise)
    ):
        why = "undecided"
    return Label(why=why, loss=run.final_loss, reference=reference)


def _broken(run: Outcome) -> Why | None:
    if not run.finite:
        return "not finite"
    if diverged(run.losses, run.final_loss):
        return "diverged"
    return None


def _groups(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, Sequence[Outcome]]]:
    groups: dict[str, dict[str, Sequence[Outcome]]] = defaultdict(dict)
    for name, replicates in outcomes.items():
        if replicates:
            groups[replicates[0].group][name] = replicates
    return groups


def _finals(members: Mapping[str, Sequence[Outcome]]) -> dict[str, float]:
    """Return the mean final loss of each configuration whose replicates all ended well."""
    return {
        name: mean(run.final_loss for run in runs)
        for name, runs in members.items()
        if not any(broke(run) for run in runs)
    }


def _best(members: Mapping[str, Sequence[Outcome]]) -> str | None:
    finals = _finals(members)
    return min(finals, key=lambda name: finals[name], default=None)


def _reference(best: str, members: Mapping[str, Sequence[Outcome]], spread: Mapping[str, float]) -> Reference:
    runs = members[best]
    loss = mean(run.final_loss for run in runs)
    validations = [run.validation_loss for each in members.values() for run in each]
    workload = runs[0].run_config.workload
    learnt, noise = max(FREQUENCIES[workload] - loss, 0.0), SPREADS * spread.get(workload, 0.0)
    return Reference(
        configuration=best,
        loss=loss,
        by_seed={run.seed: run.final_loss for run in runs},
        names=tuple(run.name for run in runs),
        noise=noise,
        margin=max(noise, SHARE * learnt),
        context=runs[0].run_config.model.context,
        validation=min((loss for loss in validations if loss is not None and isfinite(loss)), default=None),
    )


def _usual(run: Outcome, reference: Reference) -> float:
    return reference.by_seed.get(run.seed, reference.loss)


def _worse_on_longer_input(run: Outcome, reference: Reference, allowed: float) -> bool:
    if run.validation_loss is None or run.run_config.training.evaluate_length == reference.context:
        return False
    best = reference.loss if reference.validation is None else reference.validation
    return not run.validation_loss <= best + allowed
