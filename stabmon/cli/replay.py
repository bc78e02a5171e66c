"""Running rules over a stored run again; a user's own rules run in a process that is ended after a stated time."""

import os
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from stabmon.child_process import end_with_parent
from stabmon.errors import ConfigError, StabmonError
from stabmon.findings import Finding

_GRACE = 3.0
"""Seconds that rules have to end once their time is over."""


class Replay(NamedTuple):
    """A stored run to evaluate again, and changes to its own limits."""

    run: Path
    assignments: Sequence[str] = ()
    limits: Path | None = None
    ignore: Sequence[str] = ()
    rules: Sequence[Path] = ()


class Replayed(NamedTuple):
    """The findings, and the errors of rules that failed."""

    findings: Sequence[Finding]
    failures: dict[str, str]
    """Code of a rule that raised, and what; what it would have found later is missing."""


def replayed(asked: Replay) -> Replayed:
    """Replay in this process.

    Raises:
        StabmonError: the run, the limits or the rules cannot be read.
    """
    from stabmon.rules import Engine, Limits, load
    from stabmon.rules import limits as reading
    from stabmon.store import open_run

    with open_run(asked.run) as reader:
        base = reading.read(asked.limits) if asked.limits else Limits.from_mapping(reader.info.limits)
        own = reading.set_(base, *asked.assignments)
        engine = Engine(reader.info, reader.layout, own, asked.ignore, load(*asked.rules))
        engine.catch_up(reader)
    return Replayed(engine.findings, engine.failures)


def replayed_apart(asked: Replay, seconds: float) -> Replayed:
    """Replay in a process of its own, which has ``seconds`` from when it starts to load the rules.

    What runs at that time gets a ``TimeoutError``, so that it is named; the process is ended where it does not end.

    Raises:
        StabmonError: as ``replayed``; or the rules ended the process or took longer.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, asked, seconds), daemon=True)
    process.start()
    sender.close()
    files = ", ".join(map(str, asked.rules))
    try:
        receiver.recv()  # ready: everything is imported
        if not receiver.poll(seconds + _GRACE):
            raise ConfigError(
                f"{files}: the rules were not done after {seconds:g} s and were ended; see --rules-timeout"
            )
        answer: Replayed | StabmonError = receiver.recv()
    except EOFError:
        process.join()
        raise ConfigError(f"{files}: the rules ended their own process, with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(answer, StabmonError):
        raise answer
    return answer


def _serve(sender: Connection, asked: Replay, seconds: float) -> None:
    """Send the answer; what a user's file prints goes to standard error, for standard output is the command's."""
    end_with_parent()
    os.dup2(2, 1)
    import stabmon.rules
    import stabmon.store  # noqa: F401

    def out_of_time(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s, see --rules-timeout")

    sender.send(None)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        answer: Replayed | StabmonError = replayed(asked)
    except StabmonError as error:
        answer = error
    signal.setitimer(signal.ITIMER_REAL, 0)
    sender.send(answer)
