"""Numbers that the first recorded step was to bring and did not, with the likely reason."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from stabmon.failures import Failures
from stabmon.formatting import plural
from stabmon.metrics import METRICS, Place
from stabmon.series import Floats, Layout, is_missing
from stabmon.stats import Plan, finalise

NAMED = 4
"""Layers that a message names; it counts the others."""


class Seen(NamedTuple):
    """Facts that the training thread saw until the end of the first recorded step."""

    model: str
    """Name of the model's class."""
    passes: bool
    """A training pass was seen."""
    other: frozenset[str]
    """Kinds of passes that were seen and are not recorded."""
    training: Mapping[str, bool]
    """Training flag of each attention, by layer."""
    refusal: str | None
    """The reason that looking for attention failed, or None."""


class RowMaker:
    """Makes the rows of a run; the first is looked at for what is missing in it.

    first: the first recorded step and what was seen until it ended; the monitor sets it before that step's row is made.
    """

    def __init__(self, plan: Plan, failures: Failures) -> None:
        self._plan, self._failures = plan, failures
        self.first: tuple[int, Seen] | None = None

    def __call__(self, raw: Floats) -> Floats:
        """Return the row of a buffer; runs in the writer thread."""
        row = finalise(raw, self._plan)
        first, self.first = self.first, None
        if first is not None:
            self._look(*first, row)
        return row

    def _look(self, step: int, seen: Seen, row: Floats) -> None:
        """Report what is missing; a hook that failed has said so itself."""
        said = self._failures.texts
        missing = *_attention(seen, self._plan, step, row, said), *_gradients(self._plan.layout, step, row)
        for subject, reason in missing:
            self._failures.add(subject, reason)


def _attention(seen: Seen, plan: Plan, step: int, row: Floats, said: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if not plan.attentions:
        yield "no attention is recorded", why_none(seen)
        return
    failed = {one.layer for one in plan.attentions if any(text.startswith(f"{one.module}: ") for text in said)}
    absent = [layer for layer in dict.fromkeys(one.layer for one in plan.attentions) if layer not in failed]
    absent = [layer for layer in absent if not _arrived(plan.layout, layer, row)]
    resting = [layer for layer in absent if not seen.training.get(layer, True)]
    if resting:
        yield (
            f"no attention was recorded of {_named(resting)}",
            f"in eval mode at step {step}; call train() on it",
        )
    if running := [layer for layer in absent if layer not in resting]:
        yield (
            f"no attention was recorded of {_named(running)} at step {step}",
            "it did not run, or runs in a graph that torch.compile made before watch, of this model or of another one "
            "of its class; watch first, or call torch.compiler.reset() before",
        )


def why_none(seen: Seen) -> str:
    """Return why no attention was found, with what to do."""
    if seen.refusal is not None:
        return seen.refusal
    if seen.passes:
        return f"none ran in the first step of {seen.model}; pass watch(..., batch=...) with inputs that reach it"
    if "torch.compile" in seen.other:
        return (
            f"{seen.model} ran within a graph of torch.compile; pass watch(..., batch=...), or compile it by "
            "torch.compile(model) after watch, not in place"
        )
    if "eval mode" in seen.other:
        return f"{seen.model} runs in eval mode; call train() on it before the first step"
    if seen.other:
        return f"every pass through {seen.model} so far ran with {' or '.join(sorted(seen.other))}"
    return (
        f"no pass through {seen.model} was seen: it was compiled before watch, is called by model.forward(...), which "
        "runs past its hooks, or another copy of it is trained"
    )


def why_no_sample(seen: Seen, *, steps: int, optimizer: bool) -> str:
    """Return why none of ``steps`` steps was recorded, with what to do."""
    if steps:
        return f"the schedule samples none of the {plural(steps, 'step')} that were taken"
    if not seen.passes:
        return why_none(seen)
    if optimizer:
        return (
            f"the optimizer that watch was given took none; {seen.model} was trained by another "
            "one, or not at all. Give watch the optimizer in use, after it is made anew"
        )
    return "call monitor.step() after each step, or give watch the optimizer"


def _arrived(layout: Layout, layer: str, row: Floats) -> bool:
    """Return whether a number of a head of ``layer`` was measured; those of no model with heads count as arrived."""
    own = [column for column in layout.columns if column.layer == layer and _of_heads(column.metric)]
    return not own or not all(is_missing(row[one.start : one.start + one.size]).all() for one in own)


def _of_heads(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].place is Place.HEAD


def _gradients(layout: Layout, step: int, row: Floats) -> Iterator[tuple[str, str]]:
    (total,) = layout.of_metric("total_gradient_norm")
    if is_missing(row[total.start : total.start + 1]).all():
        yield (
            f"no gradient was recorded at step {step}",
            "none arrived in the model's parameters, each was used up and freed within the backward pass, or that ran "
            "in compiled autograd, past hooks",
        )


def _named(layers: list[str]) -> str:
    more = len(layers) - NAMED
    return ", ".join(layers[:NAMED]) + (f" and {plural(more, 'more layer')}" if more > 0 else "")
