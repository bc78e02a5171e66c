"""Failures to record: each is logged once, and kept for ``monitor.failures``."""

import contextlib
import logging

_log = logging.getLogger("stabmon")


class Failures:
    """Keeps each failure and logs it once; nothing here raises, from whatever thread it is called."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._said: set[str] = set()

    @property
    def texts(self) -> tuple[str, ...]:
        """Every failure so far, in the order in which they came."""
        return tuple(self._texts)

    def report(self, who: str, what: str, advice: str) -> None:
        """Warn once about ``who``."""
        if who not in self._said:
            self._said.add(who)
            self.add(f"{who}: {what}; {advice}", "The training goes on; this is logged once.")

    def note(self, text: str) -> None:
        """Keep ``text`` once, which was logged elsewhere."""
        if text not in self._texts:
            self._texts.append(text)

    def add(self, text: str, more: str = "", *, level: int = logging.WARNING) -> None:
        """Keep ``text`` and log it, with ``more`` that only the log needs."""
        self._texts.append(text)
        with contextlib.suppress(Exception):  # a handler of the user's may fail, and must not stop the training
            _log.log(level, "stabmon: %s", f"{text}. {more}".rstrip() if more else text)
