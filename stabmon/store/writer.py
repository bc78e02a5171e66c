"""The one writer of a run: a row a sampled step, folded every 128 samples, each call one transaction."""

import time as clock
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sqlalchemy import bindparam, insert, select, update

from stabmon.errors import StoreError
from stabmon.findings import Finding
from stabmon.records import Failure, Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout, Logged
from stabmon.store import schema
from stabmon.store.connect import FILE, in_our_words
from stabmon.store.end import RunEnd, counts_of, end_of
from stabmon.store.failed import write_failures
from stabmon.store.fold import Sample, fold_of, pieces
from stabmon.store.logged import ascending, count_at, lines_of
from stabmon.store.one_run import OneRun, Prepared
from stabmon.store.owner import Owner
from stabmon.store.place import RunGone, WritePlace
from stabmon.store.reservation import refuse_existing, reserve
from stabmon.store.run_file import WrittenFile, remove
from stabmon.store.watched_file import Happened

_PROGRESS = (
    update(schema.heartbeat)
    .where(schema.heartbeat.c.run == bindparam("of_run"))
    .values(step=bindparam("step"), time=bindparam("time"), samples=bindparam("samples"))
)


class NewSample(NamedTuple):
    """A sample to be written, with the numbers that were logged between the sample before and this one."""

    step: int
    time: float
    values: Floats
    """[width] float32."""
    logged: Sequence[Logged] = ()
    """In the order of their steps."""


class RunWriter:
    """Appends samples, findings and heartbeats to one run: from one thread at a time, and never after a fork.

    A call that raises ``StoreError`` has written nothing and may be made again: a disk that was full loses nothing that
    its caller keeps.
    """

    def __init__(self, target: WritePlace, layout: Layout) -> None:
        self.target = target
        self.layout = layout
        self._pieces = pieces(layout)
        self._append: Prepared | None = None
        self._progress: Prepared | None = None
        self._end = RunEnd()

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
        doing = "resuming the run" if resume else "creating the run"
        # the cause is looked for before what was made is taken away
        with ExitStack() as undo, in_our_words(file, doing):
            file.parent.mkdir(parents=True, exist_ok=True)
            held = reserve(file.parent, resume=resume) if owner is None else owner
            there = refuse_existing(file, resume=resume)
            undo.callback(held.release, ended=not there)
            if not there:
                undo.callback(remove, file)
            target = WrittenFile(file, held)
            undo.callback(target.close, ended=not there)
            writer = cls(target, layout)
            with target.transaction(doing) as run:
                schema.metadata.create_all(run.connection)
                if there:
                    writer.take_up(run)
                else:
                    run.connection.execute(insert(schema.version), {"schema": schema.SCHEMA})
                    writer.begin(run, info)
            undo.pop_all()
            return writer

    @property
    def samples(self) -> int:
        """Samples that are stored, over all attempts: the sequence of the next one."""
        return self._end.sequence

    def begin(self, run: OneRun, info: RunInfo, name: str | None = None) -> None:
        """Write what the run is; ``name``: in a store that has another run of its own name."""
        run.add(schema.run, name=name or info.name, info=info.model_dump_json(), layout=self.layout.model_dump_json())
        run.add(
            schema.heartbeat,
            **Heartbeat(state=RunState.RUNNING, step=-1, time=clock.time()).model_dump(exclude={"words"}),
        )

    def take_up(self, run: OneRun) -> None:
        """Read the end of the run, so that the next sample goes on from there; refuse another layout."""
        stored = Layout.model_validate_json(run.read(select(schema.run.c.layout)).scalar_one())
        if stored != self.layout:
            raise StoreError(
                f"cannot resume {self.target.where}: {_difference(stored, self.layout)}; give another name"
            )
        self._end = end_of(run)
        run.change(schema.heartbeat, state=RunState.RUNNING, time=clock.time())
        run.connection.execute(update(schema.version), {"schema": schema.SCHEMA})

    @contextmanager
    def _writing(self, doing: str) -> Iterator[OneRun]:
        """Yield the run in a transaction, at its true end where another process may have written."""
        with self.target.transaction(doing) as run:
            if self.target.is_shared:
                stored = counts_of(run)
                if stored is None:
                    raise RunGone(f"the run at {self.target.where} was deleted while {doing}")
                if stored != self._end.counts:
                    self._end = end_of(run)
            yield run

    def sample(self, step: int, time: float, values: Floats, logged: Sequence[Logged] = ()) -> None:
        """Append the row ``values`` [width] of ``step``; see ``append``."""
        self.append([NewSample(step, time, values, logged)])

    def append(self, rows: Sequence[NewSample], first: int | None = None, later: Sequence[Logged] = ()) -> int:
        """Append ``rows``, all or none; a step that is not beyond the last one opens a new attempt.

        first: the sequence of the first of them; those that are stored already are left out, and so is what was logged.
        later: what was logged after the last of them.

        Returns:
            the number of samples that are stored now.

        Raises:
            StoreError: none was written.
            Gap: ``first`` is beyond what is stored.
        """
        for row in rows:
            if row.values.shape != (self.layout.width,) or row.values.dtype != np.float32:
                got = f"{row.values.dtype} {row.values.shape}"
                raise StoreError(f"a row must be float32 of shape [{self.layout.width}], got {got}")
        doing = f"writing step {rows[0].step}" if rows else "writing"
        with self._writing(doing) as run:
            end = self._end
            if first is not None and first > end.sequence:
                raise Gap(end.sequence, first)
            fresh = list(rows if first is None else rows[end.sequence - first :])
            known = count_at(run, end.sequence) if first is not None and end.last_logged is not None else 0
            if fresh:
                fresh[0] = fresh[0]._replace(logged=fresh[0].logged[known:])
            for row in fresh:
                end = self._appended(run, end, row)
            if fresh:
                self._note_progress(run, end)
            elif first is not None and first + len(rows) < end.sequence:
                later = ()
            for values in ascending(later if fresh else later[known:]):
                end = self._logged(run, end, values)
        self._end = end
        return end.sequence

    def _appended(self, run: OneRun, end: RunEnd, row: NewSample) -> RunEnd:
        """Write one row after ``end``; return the new end."""
        for values in ascending(row.logged):
            end = self._logged(run, end, values)
        if end.goes_back(row.step):
            end = self._new_attempt(run, end, row.step, row.time)
        tail = (*end.tail, Sample(row.step, row.time, row.values.copy()))
        if len(tail) == schema.FOLD:
            self._fold(run, end._replace(tail=tail, sequence=end.sequence + 1))
            tail = ()
        else:
            data = row.values.astype("<f4", copy=False).tobytes()
            line = {"sequence": end.sequence, "attempt": end.attempt, "step": row.step, "time": row.time, "data": data}
            self._append = self._append or Prepared(insert(schema.tail), run.connection)
            self._append(run.connection, run=run.number, **line)
        return RunEnd(tail, end.sequence + 1, end.attempt, row.step, end.logged)

    def _note_progress(self, run: OneRun, end: RunEnd) -> None:
        self._progress = self._progress or Prepared(_PROGRESS, run.connection)
        self._progress(run.connection, of_run=run.number, step=end.last_step, time=clock.time(), samples=end.sequence)

    def logged(self, values: Sequence[Logged]) -> None:
        """Append numbers that were logged since the last sample, in the order of their steps.

        Raises:
            StoreError: none of them was written.
        """
        with self._writing(f"writing what was logged at step {values[0].step}") as run:
            end = self._logged(run, self._end, values)
        self._end = end

    def _logged(self, run: OneRun, end: RunEnd, values: Sequence[Logged]) -> RunEnd:
        """Write logged numbers, which come before the next sample; return the new end."""
        first = values[0]
        if end.goes_back(first.step):
            end = self._new_attempt(run, end, first.step, first.time)
        lines = lines_of(values, end.logged, end.sequence, end.attempt)
        run.add_all(schema.logged, lines)
        return end._replace(logged=end.logged + len(lines), last_logged=values[-1].step)

    def _new_attempt(self, run: OneRun, end: RunEnd, first: int, time: float) -> RunEnd:
        self._fold(run, end)
        run.add(schema.attempt, number=end.attempt + 1, first=first, time=time)
        return end._replace(tail=(), attempt=end.attempt + 1, last_step=None, last_logged=None)

    def _fold(self, run: OneRun, end: RunEnd) -> None:
        """Move the samples of the tail out of it."""
        if not end.tail:
            return
        start = end.sequence - len(end.tail)
        folded = fold_of(end.tail, self._pieces)
        run.add(schema.fold, attempt=end.attempt, sequence=start, **folded.about)
        run.add_all(schema.chunk, [{"sequence": start, **chunk} for chunk in folded.chunks])
        run.add_all(schema.level, [{"sequence": start, **level} for level in folded.levels])
        run.remove(schema.tail)

    def findings(self, changed: Sequence[Finding]) -> None:
        """Write findings, each over the one of the same ``key`` if it was written before.

        Raises:
            StoreError: none of them was written.
        """
        with self._writing(f"writing {len(changed)} findings") as run:
            for found in changed:
                key = {"code": found.code, "layer": found.layer or "", "opened": found.opened}
                run.remove(schema.finding, **key)
                document = found.model_dump_json()
                run.add(schema.finding, **key, severity=found.severity, cleared=found.cleared, document=document)

    def failures(self, every: Sequence[Failure]) -> None:
        """Write what is missing and why, over what was written of it before.

        Raises:
            StoreError: none of it was written.
        """
        with self._writing(f"writing {len(every)} failures") as run:
            write_failures(run, every)

    def heartbeat(self, beat: Heartbeat) -> None:
        """Write the state of the run; ``samples`` is counted here, over all attempts.

        Raises:
            StoreError: it was not written.
        """
        with self._writing("writing the heartbeat") as run:
            run.change(schema.heartbeat, **beat.model_dump(exclude={"words"}) | {"samples": self._end.sequence})

    def what_happened(self) -> Happened | None:
        """Return what became of the run's file while it was written, or None while it is where readers look for it."""
        return self.target.look()

    def close(self, state: RunState, dropped: int | None = None) -> None:
        """Write the final ``state`` and close the run.

        dropped: samples of the run that are lost, where it is more than the last heartbeat said.

        Raises:
            StoreError: the state was not written; the run is closed all the same.
        """
        ended = False
        try:
            with self.target.transaction("closing the run") as run:
                lost = {} if dropped is None else {"dropped": dropped}
                run.change(schema.heartbeat, state=state, time=clock.time(), **lost)
            ended = True
        finally:
            self.target.close(ended=ended)

    def discard(self) -> None:
        """Remove the run, while nobody else can write it: it has not begun."""
        self.target.discard()


class Gap(StoreError):
    """Samples that begin beyond what is stored of a run; ``stored`` is where they must begin."""

    def __init__(self, stored: int, first: int) -> None:
        super().__init__(f"the run has {stored} samples, so the next is number {stored}; got number {first}")
        self.stored = stored


def _difference(stored: Layout, wanted: Layout) -> str:
    """Say in one clause how two layouts differ."""
    old, new = ({(c.metric, c.layer): c.size for c in layout.columns} for layout in (stored, wanted))
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            where = f"{key[0]} of {key[1]}" if key[1] else key[0]
            return f"it was recorded with {old.get(key, 0)} columns for {where}, this model has {new.get(key, 0)}"
    return "it was recorded with its columns in another order"
