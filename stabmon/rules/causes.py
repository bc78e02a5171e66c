"""Which event follows from which: a symptom is kept under its cause, the earliest one that explains it."""

from collections.abc import Iterator

from stabmon.records import Severity
from stabmon.rules.event import Event

RECENT = 8
"""Samples for which an event that is over still counts as a cause, and by which a symptom may be seen before its cause:
loss spikes follow by 1 to 8 steps (arXiv 2304.13013), and one rule's limit is nearer than another's."""


class Causes:
    """The events of one run, and what each follows from."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """All of them, in the order in which they opened."""

    def opened(self, event: Event, samples: int) -> list[Event]:
        """Take an event that opened at the sample with this number; return the others that changed by it."""
        self.events = [other for other in self.events if other.key != event.key]
        event.follows = self._cause_of(event, samples)
        self.events.append(event)
        return [*self._led(event), *self._explained(event)]

    def escalated(self, event: Event, samples: int) -> list[Event]:
        """Take an event whose severity rose: information may be too light to be its cause."""
        if event.follows is not None and not _weighs(event.follows, event):
            event.follows = self._cause_of(event, samples)
        return self._led(event)

    def _cause_of(self, event: Event, samples: int) -> Event | None:
        for other in self._recent(samples):
            if other is not event and _explains(other, event):
                root = other.follows or other
                if root is not event and _weighs(root, event):
                    return root
        return None

    def _recent(self, samples: int) -> Iterator[Event]:
        return (event for event in self.events if event.ended is None or samples - event.ended < RECENT)

    def _explained(self, cause: Event) -> list[Event]:
        """Put those under ``cause`` that opened shortly before it was seen: limits are crossed one after another."""
        root = cause.follows or cause
        changed: list[Event] = []
        for event in self.events:
            started_first = event.sample < cause.began - RECENT
            if event in (cause, root) or event.follows is not None or started_first:
                continue
            if _explains(cause, event) and _weighs(root, event):
                for below in [event, *(other for other in self.events if other.follows is event)]:
                    below.follows = root
                    below.touch()
                    changed += [below, *self._led(below)]
        return changed

    def _led(self, event: Event) -> list[Event]:
        """Note by how much the cause of a finding about the loss came before it."""
        root = event.follows
        if root is None or root.lead is not None or not event.rule.code.startswith("LOS"):
            return []
        root.lead = event.opened - root.opened
        root.touch()
        return [root]


def _explains(cause: Event, event: Event) -> bool:
    """Return whether ``event`` is a symptom of what ``cause`` says, in the same layer or of the run as a whole."""
    if cause.rule.code not in event.rule.symptom_of:
        return False
    return cause.run_wide or event.run_wide or cause.layer == event.layer


def _weighs(cause: Event, event: Event) -> bool:
    """Return whether ``cause`` is grave enough: information explains information only."""
    return cause.severity is not Severity.INFO or event.severity is Severity.INFO
