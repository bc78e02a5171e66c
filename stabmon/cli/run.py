"""Running a command to its exit code, which differs for a healthy end, a finding, wrong use and a crash."""

import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable

from stabmon.errors import StabmonError
from stabmon.terminal import Terminal

WRONG_USE = 2
INTERNAL_ERROR = 70
INTERRUPTED = 130
READER_GONE = 141
EXIT_CODES = (
    "Exit codes: 0 healthy or done; 1 a finding at error level (findings, preflight, train) or a failed check"
    " (selftest); 2 wrong use, a damaged run, or a machine that lacks what was asked for; 70 an internal error; 130"
    " interrupted; 141 the reader of the output has gone; 143 ended by SIGTERM, which a shell says itself."
)


def ended(command: Callable[[], object]) -> int:
    """Run ``command`` and return the exit code of the process; what went wrong is said in one line."""
    _accept_any_text()
    if sys.stdout is None:
        _say("standard output is closed; redirect it, to /dev/null where it is not wanted")
        return WRONG_USE
    code = _code(command)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _output_lost(error)
    return code


def _accept_any_text() -> None:
    """Let streams that cannot encode a character write its escape, so that a latin-1 terminal gets every line."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _code(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer ends with 1, which says that a finding is an error
            return _output_lost(end.__context__)
        return end.code if isinstance(end.code, int) else WRONG_USE if end.code else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except StabmonError as error:
        _say(str(error))
    except OSError as error:
        _say(str(error))
    except Exception as error:  # the outermost place: whatever comes here is our mistake, or the machine's memory
        if not _lacks_memory(error):
            return _internal(error)
        _say(f"there is not enough memory for this: {_first_line(error)}; make model, batch or context smaller")
    return WRONG_USE


def _output_lost(error: OSError) -> int:
    """Say why standard output took no more, and keep the interpreter from trying again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    _say(f"cannot write to standard output: {error.strerror or error}")
    return WRONG_USE


def _lacks_memory(error: Exception) -> bool:
    """Return whether ``error`` is Python's, torch's or CUDA's way of saying that memory is used up."""
    said = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "calculation overflowed")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def _internal(error: Exception) -> int:
    """Keep the traceback in a file and name it."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="stabmon-", suffix=".txt", delete=False) as file:
            file.write(text)
        where = f"the traceback is in {file.name}"
    except OSError:
        where = text
    _say(f"internal error, a mistake in stabmon: {type(error).__name__}: {_first_line(error)}; {where}")
    return INTERNAL_ERROR


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0][:300]


def _say(message: str) -> None:
    terminal = Terminal(stderr=True)
    try:
        terminal.print("error:", style="bold red", end=" ")
        terminal.print(message, soft_wrap=True)
    except OSError:  # standard error is gone too; the exit code has to do
        pass
