"""Standard error for a training: a reader that goes away, or an encoding without a letter, stops nothing."""

import sys

from stabmon.terminal import Terminal


class StandardError(Terminal):
    """Prints to whatever ``sys.stderr`` is at the moment; letters that its encoding lacks are escaped."""

    def __init__(self) -> None:
        super().__init__(file=_Stream(), stderr=True)


class _Stream:
    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr is not None and sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()
