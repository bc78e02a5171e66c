"""Failures to record: each is logged once, and kept with its steps for ``monitor.failures`` and the run's file."""

import contextlib
import logging
import threading

from stabmon.records import Failure

_log = logging.getLogger("stabmon")


class Failures:
    """Keeps each failure and logs it once; nothing here raises, from whatever thread it is called.

    step: the training's open step, which the monitor sets.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self._kept: dict[tuple[str, str], Failure] = {}
        self._of: dict[str, tuple[str, str]] = {}
        """The first failure of what ``report`` warns of once."""
        self._lock = threading.Lock()

    @property
    def texts(self) -> tuple[str, ...]:
        """Every failure so far in words, in the order in which they came."""
        return tuple(failure.text for failure in self.records)

    @property
    def records(self) -> tuple[Failure, ...]:
        """Every failure so far, in the order in which they came."""
        with self._lock:
            return tuple(self._kept.values())

    def report(self, who: str, what: str, advice: str, *, step: int | None = None) -> None:
        """Warn once about ``who``; what happens to it later is only counted."""
        key = self._of.setdefault(who, (who, f"{what}; {advice}"))
        if self._keep(key, step):
            self._say(key, "The training goes on; this is logged once.")

    def note(self, subject: str, reason: str) -> None:
        """Keep what was logged elsewhere, once."""
        if (subject, reason) not in self._kept:
            self._keep((subject, reason), None)

    def add(self, subject: str, reason: str, more: str = "", *, level: int = logging.WARNING) -> None:
        """Keep a failure and log it once, with ``more`` that only the log needs; count it where it came before."""
        if self._keep((subject, reason), None):
            self._say((subject, reason), more, level)

    def _keep(self, key: tuple[str, str], step: int | None) -> bool:
        """Return whether it is new."""
        now = self.step if step is None else step
        with self._lock:
            before = self._kept.get(key)
            if before is None:
                subject, reason = key
                self._kept[key] = Failure(subject=subject, reason=reason, first_step=now, last_step=now)
            else:
                self._kept[key] = before.model_copy(update={"last_step": now, "count": before.count + 1})
        return before is None

    @staticmethod
    def _say(key: tuple[str, str], more: str, level: int = logging.WARNING) -> None:
        with contextlib.suppress(Exception):  # a handler of the user's may fail, and must not stop the training
            text = ": ".join(key)
            _log.log(level, "stabmon: %s", f"{text}. {more}".rstrip() if more else text)
