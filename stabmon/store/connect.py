"""Opening run.sqlite: for the one writer, and read-only for everyone else; errors in the user's words."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import count
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection, create_engine, event, exc
from sqlalchemy.pool import StaticPool

from stabmon.errors import StoreError
from stabmon.store.integrity import check_tables, damaged
from stabmon.store.reason import reason

FILE = "run.sqlite"
"""Name of the file in a run's folder."""

OPENING = "opening it"
_RUNS = Path("runs")
"""The folder in which commands put runs where ``--dir`` gives none."""

_PATIENCE = 5.0
"""Seconds that a reader waits for a lock, which in WAL mode is only held while a crashed writer's log is recovered."""

_PAGE = 2048
"""Bytes of a page of a new file. Measured over 7,680 samples, bytes a value with pages of 2048 and of 8192: 7.5 and 8.8
with 10 columns, 7.1 and 6.6 with 30, 5.8 and 7.5 with 100; 4.9 and 5.6 with 600 (3,840 samples). Writing takes as long.
What is left above 4 are steps and times, 16 bytes a sample, the levels, half a byte, keys, and blobs that do not fill
their pages."""

_LARGEST = 1 << 27
"""Most bytes of one value that a reader takes into memory: a metric of 262,144 columns, folded."""

_WORK = 200
"""Most millions of the database's instructions in one snapshot; to check a run of a million steps takes ten."""


def file_of(path: Path | str) -> Path:
    """Return the run file that ``path``, a run's folder or the file itself, refers to."""
    path = Path(path)
    return path if path.name == FILE or path.is_file() else path / FILE


@contextmanager
def in_our_words(file: Path, doing: str) -> Iterator[None]:
    """Turn what the database raises, or reading JSON in it, into a ``StoreError`` that says where and what was done."""
    try:
        yield
    except exc.DBAPIError as error:
        raise StoreError(_message(file, doing, error.orig or error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([error.title, *(str(part) for part in first["loc"])])
        raise damaged(file, f"{where}: {first['msg']}") from error
    except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise StoreError(_message(file, doing, error)) from error


def _message(file: Path, doing: str, error: BaseException) -> str:
    why, said = reason(file, error), str(error)
    if "not a database" in said and doing == OPENING:
        return f"{file} is not a stabmon run: it is no SQLite file; expected a file that stabmon.watch wrote"
    if why == said and not file.exists():
        return f"{file} is gone ({said}): it was deleted or moved while {doing}"
    if any(word in said for word in ("malformed", "too big", "unsupported file format", "Could not decode")):
        return str(damaged(file, said))
    if said == "interrupted":
        return str(damaged(file, f"{doing} took more than {_WORK} million instructions of the database"))
    return f"{file}: {doing} failed: {why}" + ("" if why == said else f" ({said})")


def _connection(connect: Callable[[], sqlite3.Connection], begin: str = "BEGIN") -> Connection:
    """Return a connection whose transactions begin when ``begin`` says so, for reads too: each is one snapshot."""
    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine.connect()


def _limit_work(connection: Connection) -> None:
    """Let the transaction that begins take ``_WORK`` at most, whatever a hostile file makes of its queries."""
    millions = count()
    opened = connection.connection.driver_connection
    assert isinstance(opened, sqlite3.Connection)
    opened.set_progress_handler(lambda: next(millions) >= _WORK, 1_000_000)


def disconnect(connection: Connection) -> None:
    """Close ``connection`` and the file under it."""
    connection.close()
    connection.engine.dispose()


def for_writing(file: Path, patience: float = 1.0) -> Connection:
    """Open ``file`` for its one writer, in WAL mode; a commit survives the death of the process.

    What a transaction reads cannot change before it writes: the servers of one folder take turns.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=patience, isolation_level=None, check_same_thread=False)
        for pragma in ("trusted_schema=OFF", f"page_size={_PAGE}", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    return _connection(connect, "BEGIN IMMEDIATE")


def for_reading(file: Path) -> Connection:
    """Open ``file`` read-only and check that it is a run this stabmon can read.

    Raises:
        StoreError: the file is missing, foreign, written by a newer stabmon, or cannot be opened.
    """
    with in_our_words(file, OPENING):
        _look(file)
        connection = _connection(lambda: _read_only(file))
        try:
            event.listen(connection.engine, "begin", _limit_work)
            with connection.begin():
                check_tables(connection, file)
        except BaseException:
            disconnect(connection)
            raise
    return connection


def _look(file: Path) -> None:
    """Refuse what is not there, or is no file: opening a pipe waits for ever, and so does its log's."""
    if not file.exists():
        why = f"it has no {file.name}" if file.parent.exists() else "there is no such folder"
        raise StoreError(f"no run at {file.parent}: {why}; {_instead(file.parent)}")
    for part in (file, *(file.with_name(f"{file.name}-{end}") for end in ("wal", "shm"))):
        if part.exists() and not part.is_file():
            raise damaged(file, f"{part.name} is a folder, a pipe or a device, expected a file")


def _instead(folder: Path) -> str:
    """Say what to give instead of ``folder``: a run of a similar name, or one of the runs in it."""
    if not folder.exists():
        others = [found.parent for above in (_RUNS, folder.parent) for found in above.glob(f"*/{FILE}")]
        beside = {run.name: run for run in others}
        near = get_close_matches(folder.name, beside, 1)
        return f"did you mean {beside[near[0]]}?" if near else "expected a folder that stabmon.watch wrote"
    inside = sorted(str(found.parent) for found in folder.glob(f"*/{FILE}"))
    if not inside:
        return "expected a folder that stabmon.watch wrote"
    more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
    return f"give one of the runs in it: {', '.join(inside[:5])}{more}"


def _read_only(file: Path) -> sqlite3.Connection:
    """Open ``file`` read-only; where the folder takes no files either, a run without a log is read as it lies."""
    uri = f"{file.resolve().as_uri()}?mode=ro"
    connection = _open(uri)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError:
        connection.close()
        log = file.with_name(f"{file.name}-wal")
        if log.exists() and log.stat().st_size:
            raise StoreError(
                f"{file} has a log that a crashed writer left, and its folder cannot be written to, which reading the "
                "log needs: copy the folder to where you can write, and open it there"
            ) from None
        connection = _open(f"{uri}&immutable=1")
    return connection


def _open(uri: str) -> sqlite3.Connection:
    """Open for reading alone; nothing that the file's own schema says is run."""
    connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
    for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
