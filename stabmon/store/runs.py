"""The runs of a directory, each in a few facts."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path, PurePath
from typing import TypeVar

from pydantic import Field

from stabmon.errors import StoreError
from stabmon.findings import Health, Process, digest
from stabmon.findings.digest import process_of
from stabmon.names import check_run_name, legible, natural_key
from stabmon.records import Heartbeat, Record, RunState, Severity
from stabmon.store.connect import FILE, in_our_words
from stabmon.store.integrity import NothingYet
from stabmon.store.owner import LOCK, holder
from stabmon.store.reader import RunReader, open_run

STARTS = 600.0
"""Seconds for which an empty folder is taken for a run that starts: a model is large, its first step may take long."""
_OWN = (LOCK, FILE, "events.out.tfevents.")
"""Beginnings of the names of files in a run's folder."""


class RunSummary(Record):
    """One run of a directory, or what keeps it from being read."""

    name: str
    """The folder's name, which is also its address on the page."""
    path: str
    beat: Heartbeat | None = None
    """Its state; None where it is not known."""
    created: datetime | None = None
    findings: dict[Severity, int] = Field(default_factory=dict)
    """Number of findings, open or cleared, by severity, the most severe first."""
    health: Health | None = None
    process: Process | None = None
    problem: str | None = None
    """The reason that it cannot be read; everything else is then unknown."""


_Run = TypeVar("_Run", bound=RunSummary)


def runs(directory: Path | str) -> list[RunSummary]:
    """Return the runs in ``directory``, newest first, unreadable ones last; a folder that is no run's is left out.

    Raises:
        StoreError: the folder is there and may not be listed.
    """
    return newest_first(found for folder in folders(directory) if (found := summary(folder)) is not None)


def folders(directory: Path | str) -> list[Path]:
    """Return the folders in ``directory``, each of which may hold a run; none where there is no such directory.

    Raises:
        StoreError: it is there and may not be listed.
    """
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"cannot list the runs in {directory}: {error.strerror or error}") from error


DEPTH = 4
"""Folders within one another in which runs are looked for."""


def nested(directory: Path | str, depth: int = DEPTH) -> list[Path]:
    """Return the folders below ``directory`` that may hold a run: those with one, and those without folders in them.

    Raises:
        StoreError: ``directory`` may not be listed; what lies below and may not is left out.
    """
    found = []
    for folder in folders(directory):
        within = [] if depth <= 1 or folder.is_symlink() or _is_run(folder) else _within(folder, depth - 1)
        found += within or [folder]
    return found


def _is_run(folder: Path) -> bool:
    return os.path.lexists(f"{folder}/{FILE}") or os.path.lexists(f"{folder}/{LOCK}")


def _within(folder: Path, depth: int) -> list[Path]:
    with suppress(StoreError):
        return nested(folder, depth)
    return []


def is_below(name: str) -> bool:
    """Return whether a run can have this address: its folder's name, after those of the folders that it lies in."""
    parts = name.split("/")
    fits = all(part and PurePath(part).name == part and part != ".." for part in parts)
    return len(parts) <= DEPTH and fits and "\0" not in name


def newest_first(found: Iterable[_Run]) -> list[_Run]:
    """Sort runs: newest first, those whose time is not known last."""
    by_name = sorted(found, key=lambda run: natural_key(run.name))
    return sorted(by_name, key=lambda run: -_seconds(run.created) if run.created else float("inf"))


def _seconds(created: datetime) -> float:
    """Return seconds since the epoch; a time without a zone, which only another program writes, is read as UTC."""
    return (created if created.tzinfo else created.replace(tzinfo=UTC)).timestamp()


Read = Callable[[RunReader, RunSummary], RunSummary]
"""Completes what is known of a run by reading more of it."""


def as_known(run: RunReader, known: RunSummary) -> RunSummary:
    """Read nothing more."""
    return known


def summary(folder: Path, read: Read = as_known) -> RunSummary | None:
    """Describe the run in ``folder``, or return None where there is none.

    What is wrong with it, its name, or its folder's permissions, is its own problem alone.

    read: completes what is known of a run by reading more of it.
    """
    bare = RunSummary(name=legible(folder.name), path=legible(str(folder)))
    try:
        (folder / FILE).lstat()
    except FileNotFoundError:
        return _starting(folder, bare)
    except OSError as error:
        return _problem(bare, f"cannot look into {folder}: {error.strerror}")
    if bare.name != folder.name:
        return _problem(bare, "the name of its folder is not UTF-8: rename it")
    try:
        with open_run(folder) as run:
            return read(run, described(run, bare))
    except NothingYet as error:
        return _starting(folder, bare) if holder(folder) else _problem(bare, str(error))
    except StoreError as error:
        return _problem(bare, str(error)) if (folder / FILE).exists() else None


def _problem(bare: RunSummary, problem: str) -> RunSummary:
    return bare.model_copy(update={"problem": legible(problem)})


def described(run: RunReader, bare: RunSummary) -> RunSummary:
    """Complete ``bare`` by the state and the findings of an open run."""
    beat, found = run.heartbeat(), run.findings()
    words = digest(found, layers=len(run.info.model.attentions), beat=beat)
    known = {"created": run.info.created, "findings": words.counts, "health": words.health}
    return bare.model_copy(update=known | {"beat": beat, "process": words.process})


def _starting(folder: Path, bare: RunSummary) -> RunSummary | None:
    """Describe a run that has stored nothing yet: its lock is held, or its folder is new and holds nothing else."""
    try:
        made = folder.stat().st_mtime
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _problem(bare, f"cannot look into {folder}: {error.strerror}")
    owner = holder(folder)
    if owner is None and (time.time() - made > STARTS or not all(name.startswith(_OWN) for name in names)):
        return None
    state = RunState.CRASHED if owner == "" else RunState.STARTING
    since = bare.model_copy(update={"created": datetime.fromtimestamp(made, UTC)})
    return at_state(since, Heartbeat(state=state, step=-1, time=made))


def at_state(run: _Run, beat: Heartbeat) -> _Run:
    """Return ``run`` with another heartbeat, where its findings are the same or none."""
    health = run.health or digest((), beat=beat).health
    return run.model_copy(update={"beat": beat, "process": process_of(beat), "health": health})


def fresh_name(directory: Path | str, name: str) -> str:
    """Return ``name``, or ``name-2``, ``name-3``, ... whichever is free in ``directory``, and make its folder.

    Making the folder is what takes the name: of several processes that start at once, each gets its own.

    Raises:
        ArgumentError: ``name`` cannot be a run's; nothing was made.
        StoreError: the folder cannot be made.
    """
    check_run_name(name)
    with in_our_words(Path(directory) / name, "creating the run"):
        Path(directory).mkdir(parents=True, exist_ok=True)
        for number in count(1):
            chosen = name if number == 1 else f"{name}-{number}"
            with suppress(FileExistsError):
                (Path(directory) / chosen).mkdir()
                return chosen
    raise AssertionError  # the numbers do not end
