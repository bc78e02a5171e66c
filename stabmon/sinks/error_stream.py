"""Standard error as rich sees it, but without what rich does to the whole process when its reader goes away."""

import sys

from rich.console import Console


class ErrorStream(Console):
    """Prints to standard error; a pipe that nobody reads any more is an error of this console alone.

    rich's own answer to it is to point the user's standard output at the null device and to raise ``SystemExit``.
    """

    def __init__(self) -> None:
        super().__init__(file=_StandardError(), highlight=False)  # type: ignore[arg-type]

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled."""
        self.quiet = True
        raise BrokenPipeError("nobody reads standard error any more")


class _StandardError:
    """Whatever ``sys.stderr`` is at the moment; letters that its encoding lacks are escaped."""

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
