"""The one writer of a run: a row a sampled step, folded every 128 samples, each call one transaction."""

import time as clock
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Table, delete, func, insert, select, update

from stabmon.errors import StoreError
from stabmon.findings import Finding
from stabmon.records import Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout, Logged
from stabmon.store import schema
from stabmon.store.connect import FILE, disconnect, for_writing, in_our_words
from stabmon.store.fold import Sample, fold_of, pieces
from stabmon.store.logged import lines_of
from stabmon.store.owner import Owner
from stabmon.store.reader import open_run
from stabmon.store.watched_file import Happened, WatchedFile


class RunWriter:
    """Appends samples, findings and heartbeats to one run: from one thread at a time, and never after a fork.

    A call that raises ``StoreError`` has written nothing and may be made again: a disk that was full loses nothing that
    its caller keeps.
    """

    def __init__(self, connection: Connection, file: Path, layout: Layout, owner: Owner, watched: WatchedFile) -> None:
        self.file = file
        self._owner, self._watched = owner, watched
        self.layout = layout
        self._connection = connection
        self._pieces = pieces(layout)
        # compiled once: building and caching the two statements of each sample took 40 of its 110 µs
        self._append = str(insert(schema.tail).compile(connection))
        progress = update(schema.heartbeat).values(step=0, time=0.0, samples=0)
        self._progress = str(progress.compile(connection))
        self._tail: list[Sample] = []
        self._sequence = 0
        self._attempt = 0
        self._last_step: int | None = None
        self._logged = 0
        """Lines of numbers that were logged between samples."""
        self._last_logged: int | None = None
        """Step of what was logged last, where no sample came after it."""

    @classmethod
    def create(
        cls, folder: Path, info: RunInfo, layout: Layout, *, resume: bool = False, owner: Owner | None = None
    ) -> "RunWriter":
        """Start the run ``folder``/run.sqlite, or with ``resume`` go on with the one that is there.

        owner: of ``reserve``, where the folder was reserved before.

        Raises:
            StoreError: the run exists already and ``resume`` is False; another process writes it; its layout differs;
                it cannot be written.
        """
        file = Path(folder) / FILE
        # the cause is looked for before what was made is taken away
        with ExitStack() as undo, in_our_words(file, "resuming the run" if resume else "creating the run"):
            file.parent.mkdir(parents=True, exist_ok=True)
            held = reserve(file.parent, resume=resume) if owner is None else owner
            there = _refuse_existing(file, resume=resume)
            undo.callback(held.release, ended=not there)
            if not there:
                undo.callback(_remove, file)
            watched = WatchedFile(file)
            undo.callback(watched.close)
            connection = for_writing(file)
            undo.callback(disconnect, connection)
            writer = cls(connection, file, layout, held, watched)
            with connection.begin():
                if there:
                    writer._take_up()
                else:
                    writer._begin(info)
            undo.pop_all()
            return writer

    def _make_tables(self) -> None:
        """Make the tables that are not there: all of a new file, those that came later of an older one."""
        schema.metadata.create_all(self._connection)

    def _begin(self, info: RunInfo) -> None:
        self._make_tables()
        self._connection.execute(insert(schema.version), {"schema": schema.SCHEMA})
        self._add(schema.run, name=info.name, info=info.model_dump_json(), layout=self.layout.model_dump_json())
        beat = Heartbeat(state=RunState.RUNNING, step=-1, time=clock.time())
        self._add(schema.heartbeat, **beat.model_dump())

    def _take_up(self) -> None:
        """Read the end of the run, so that the next sample goes on from there; refuse another layout."""
        stored = Layout.model_validate_json(self._connection.execute(select(schema.run.c.layout)).scalar_one())
        if stored != self.layout:
            raise StoreError(f"cannot resume {self.file.parent}: {_difference(stored, self.layout)}; give another name")
        self._make_tables()
        tail = schema.tail.c
        for row in self._connection.execute(select(schema.tail).order_by(tail.sequence)):
            self._tail.append(Sample(row.step, row.time, np.frombuffer(row.data, dtype="<f4")))
            self._sequence, self._last_step = row.sequence + 1, row.step
        if not self._tail:
            fold = schema.fold.c
            last = self._connection.execute(select(schema.fold).order_by(fold.sequence.desc()).limit(1)).one_or_none()
            if last is not None:
                self._sequence, self._last_step = last.sequence + last.samples, last.last
        self._attempt = self._connection.execute(select(func.max(schema.attempt.c.number))).scalar_one() or 0
        logged = schema.logged.c
        lines = select(func.count(), func.max(logged.last).filter(logged.attempt == self._attempt))
        self._logged, self._last_logged = self._connection.execute(lines).one()
        self._connection.execute(update(schema.heartbeat), {"state": RunState.RUNNING, "time": clock.time()})
        self._connection.execute(update(schema.version), {"schema": schema.SCHEMA})

    def sample(self, step: int, time: float, values: Floats, logged: Sequence[Logged] = ()) -> None:
        """Append the row ``values`` [width] of ``step``; a step that is not beyond the last one opens a new attempt.

        logged: numbers that were logged between the sample before and this one, in the order of their steps.

        Raises:
            StoreError: it was not written.
        """
        if values.shape != (self.layout.width,) or values.dtype != np.float32:
            raise StoreError(f"a row must be float32 of shape [{self.layout.width}], got {values.dtype} {values.shape}")
        added = Sample(step, time, values.copy())
        rewound = self._goes_back(logged[0].step if logged else step)
        attempt = self._attempt + rewound
        tail = [added] if rewound else [*self._tail, added]
        with in_our_words(self.file, f"writing step {step}"), self._connection.begin():
            if rewound:
                self._open_attempt(attempt, logged[0].step if logged else step, time)
            lines = self._log(logged, attempt)
            if len(tail) == schema.FOLD:
                self._fold(tail, self._sequence + 1, attempt)
            else:
                data = added.values.astype("<f4", copy=False).tobytes()
                line = (schema.RUN, self._sequence, attempt, step, time, data)
                self._connection.exec_driver_sql(self._append, line)
            self._connection.exec_driver_sql(self._progress, (step, clock.time(), self._sequence + 1))
        self._tail = [] if len(tail) == schema.FOLD else tail
        self._attempt, self._last_step, self._sequence = attempt, step, self._sequence + 1
        self._logged, self._last_logged = self._logged + lines, None

    def logged(self, values: Sequence[Logged]) -> None:
        """Append numbers that were logged since the last sample, in the order of their steps.

        Raises:
            StoreError: none of them was written.
        """
        first = values[0]
        rewound = self._goes_back(first.step)
        attempt = self._attempt + rewound
        with in_our_words(self.file, f"writing what was logged at step {first.step}"), self._connection.begin():
            if rewound:
                self._open_attempt(attempt, first.step, first.time)
            lines = self._log(values, attempt)
        if rewound:
            self._tail, self._last_step = [], None
        self._attempt, self._logged, self._last_logged = attempt, self._logged + lines, values[-1].step

    def _goes_back(self, step: int) -> bool:
        """Return whether ``step`` was passed before, so that it belongs to a new attempt."""
        before = -1 if self._last_logged is None else self._last_logged
        return self._attempt == 0 or step < before or (self._last_step is not None and step <= self._last_step)

    def _open_attempt(self, attempt: int, first: int, time: float) -> None:
        self._fold(self._tail, self._sequence)
        self._add(schema.attempt, number=attempt, first=first, time=time)

    def _log(self, values: Sequence[Logged], attempt: int) -> int:
        """Write the lines of logged numbers; return how many they are."""
        lines = lines_of(values, self._logged, self._sequence, attempt)
        if lines:
            self._connection.execute(insert(schema.logged), lines)
        return len(lines)

    def _fold(self, samples: Sequence[Sample], end: int, attempt: int | None = None) -> None:
        """Move ``samples``, the last before sequence ``end``, out of the tail."""
        if not samples:
            return
        start = end - len(samples)
        folded = fold_of(samples, self._pieces)
        about = {"attempt": self._attempt if attempt is None else attempt, "sequence": start}
        self._add(schema.fold, **about, **folded.about)
        key = {"run": schema.RUN, "sequence": start}
        self._connection.execute(insert(schema.chunk), [key | chunk for chunk in folded.chunks])
        self._connection.execute(insert(schema.level), [key | level for level in folded.levels])
        self._connection.execute(delete(schema.tail))

    def findings(self, changed: Sequence[Finding]) -> None:
        """Write findings, each over the one of the same ``key`` if it was written before.

        Raises:
            StoreError: none of them was written.
        """
        finding = schema.finding
        with in_our_words(self.file, f"writing {len(changed)} findings"), self._connection.begin():
            for found in changed:
                key = {"code": found.code, "layer": found.layer or "", "opened": found.opened}
                self._connection.execute(delete(finding).where(*(finding.c[name] == key[name] for name in key)))
                document = found.model_dump_json()
                self._add(finding, **key, severity=found.severity, cleared=found.cleared, document=document)

    def heartbeat(self, beat: Heartbeat) -> None:
        """Write the state of the run; ``samples`` is counted here, over all attempts.

        Raises:
            StoreError: it was not written.
        """
        with in_our_words(self.file, "writing the heartbeat"), self._connection.begin():
            now = beat.model_dump() | {"samples": self._sequence}
            self._connection.execute(update(schema.heartbeat), now)

    def what_happened(self) -> Happened | None:
        """Return what became of the run's file while it was written, or None while it is where readers look for it."""
        return self._watched.look()

    def close(self, state: RunState, dropped: int | None = None) -> None:
        """Write the final ``state`` and close the file, whose log is merged into it where no reader is in the way.

        dropped: samples of the run that are lost, where it is more than the last heartbeat said.

        Raises:
            StoreError: the state was not written; the file is closed all the same.
        """
        last: dict[str, object] = {"state": state, "time": clock.time()}
        ended = False
        try:
            with in_our_words(self.file, "closing the run"), self._connection.begin():
                now = last if dropped is None else last | {"dropped": dropped}
                self._connection.execute(update(schema.heartbeat), now)
            ended = True
        finally:
            disconnect(self._connection)
            self._watched.close()
            self._owner.release(ended=ended)

    def discard(self) -> None:
        """Close the file and remove it, while nobody else can write it: the run has not begun."""
        disconnect(self._connection)
        self._watched.close()
        _remove(self.file)
        self._owner.release(ended=True)

    def _add(self, table: Table, **columns: object) -> None:
        self._connection.execute(insert(table), {"run": schema.RUN, **columns})


def reserve(folder: Path, *, resume: bool = False) -> Owner:
    """Return the ownership of ``folder``, which is made, for a run that is to start or, with ``resume``, to go on.

    Raises:
        StoreError: a run is there and ``resume`` is False, or it is foreign, newer or damaged; another process writes
            it; the folder cannot be made.
    """
    file = Path(folder) / FILE
    with ExitStack() as undo, in_our_words(file, "resuming the run" if resume else "creating the run"):
        file.parent.mkdir(parents=True, exist_ok=True)
        _refuse_existing(file, resume=resume)
        owner = Owner(file.parent)
        undo.callback(owner.release)
        if _refuse_existing(file, resume=resume):
            open_run(file).close()
        undo.pop_all()
        return owner


def _remove(file: Path) -> None:
    """Remove a run's file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def _refuse_existing(file: Path, *, resume: bool) -> bool:
    """Return whether there is a run to go on with; raise where there is one that must not be written over."""
    there = file.exists() and (not file.is_file() or file.stat().st_size > 0)
    if there and not resume:
        raise StoreError(
            f"the run {file.parent.name!r} exists already at {file.parent}: give another name, pass resume=True to go "
            "on with it, or delete the folder"
        )
    return there


def _difference(stored: Layout, wanted: Layout) -> str:
    """Say in one clause how two layouts differ."""
    old, new = ({(c.metric, c.layer): c.size for c in layout.columns} for layout in (stored, wanted))
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            where = f"{key[0]} of {key[1]}" if key[1] else key[0]
            return f"it was recorded with {old.get(key, 0)} columns for {where}, this model has {new.get(key, 0)}"
    return "it was recorded with its columns in another order"
