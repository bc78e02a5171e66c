"""The runs of a directory, each in one line."""

from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from pydantic import Field

from stabmon.errors import StoreError
from stabmon.findings.digest import counts
from stabmon.names import check_run_name, natural_key
from stabmon.records import Record, RunState, Severity
from stabmon.store.connect import FILE, in_our_words
from stabmon.store.reader import open_run


class RunSummary(Record):
    """One run of a directory, or what keeps it from being read."""

    name: str
    """The folder's name, which is also its address on the page."""
    path: Path
    state: RunState | None = None
    words: str = ""
    """The state in words, with what was lost."""
    step: int = -1
    """Latest sampled step; -1 before the first."""
    created: datetime | None = None
    findings: dict[Severity, int] = Field(default_factory=dict)
    """Number of findings, open or cleared, by severity, the most severe first."""
    problem: str | None = None
    """The reason that it cannot be read; everything else is then unknown."""


def runs(directory: Path | str) -> list[RunSummary]:
    """Return the runs in ``directory``, newest first, unreadable ones last; a folder without a run.sqlite is no run.

    Raises:
        StoreError: the folder is there and may not be listed.
    """
    try:
        entries = [entry for entry in Path(directory).iterdir() if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"cannot list the runs in {directory}: {error.strerror or error}") from error
    found = [summary for entry in entries if (summary := _summary(entry)) is not None]
    found.sort(key=lambda summary: natural_key(summary.name))
    return sorted(found, key=lambda run: -_seconds(run.created) if run.created else float("inf"))


def _seconds(created: datetime) -> float:
    """Return seconds since the epoch; a time without a zone, which only another program writes, is read as UTC."""
    return (created if created.tzinfo else created.replace(tzinfo=UTC)).timestamp()


def _summary(folder: Path) -> RunSummary | None:
    """Describe one run; what is wrong with it, or with its folder's permissions, is its own problem alone."""
    try:
        (folder / FILE).lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return RunSummary(name=folder.name, path=folder, problem=f"cannot look into {folder}: {error.strerror}")
    try:
        with open_run(folder) as run:
            beat = run.heartbeat()
            return RunSummary(
                name=folder.name,
                path=folder,
                state=beat.state,
                words=beat.words,
                step=beat.step,
                created=run.info.created,
                findings=counts(run.findings()),
            )
    except StoreError as error:
        still_there = (folder / FILE).exists()
        return RunSummary(name=folder.name, path=folder, problem=str(error)) if still_there else None


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
