"""A run's numbers for other programs: every sample, a column a number, as CSV or Parquet.

Columns are ``step``, ``time`` (seconds since the epoch) and one for each metric, layer and head:
``row_mass/layers.3/head 2``. In CSV a unit is in brackets after a column's name; NaN and infinities are "NaN", "inf"
and "-inf", a cell that was not measured is empty. In Parquet both have marks of their own: NaN is NaN, not measured is
null, and unit and definition are in the column's metadata, the run's description in the file's. Of a run that was
resumed, each step is as the latest attempt left it, as the page shows it.
"""

import csv
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.errors import StabmonError
from stabmon.metrics import Place, describe
from stabmon.names import legible
from stabmon.series import MISSING, Floats, is_missing
from stabmon.store import RunReader
from stabmon.store.logged import is_own

BLOCK = 4096
"""Samples that are held in memory at once."""


class ExportError(StabmonError, RuntimeError):
    """A file that cannot be written as asked."""


class Field(NamedTuple):
    """A column: a metric of a layer and head, or of the run."""

    name: str
    metric: str
    layer: str | None
    head: int | None
    unit: str
    text: str
    """Its definition."""


class _Block(NamedTuple):
    """Some samples: S steps, their times, and [S, columns] numbers."""

    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    values: Floats


def export(run: RunReader, file: Path, form: str) -> int:
    """Write all samples of ``run`` to ``file`` as "csv" or "parquet"; return their number.

    The file appears whole or not at all; a link stays one, and what is no plain file, such as a pipe, is written to.

    Raises:
        ExportError: pyarrow is not installed, the format is unknown, or the file cannot be written.
        StoreError: the run is gone.
    """
    if form not in WRITERS:
        raise ExportError(f"unknown format {form!r}; expected one of {', '.join(WRITERS)}")
    try:
        target = file.resolve()
        if target.exists() and not target.is_file():
            return WRITERS[form](run, target)
        return _whole(target, partial(WRITERS[form], run))
    except OSError as error:
        raise ExportError(f"cannot write {file}: {error.strerror or error}") from error


def _whole(file: Path, write: Callable[[Path], int]) -> int:
    """Let ``write`` make a file beside ``file``, put it in its place, and return what ``write`` did."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        written = write(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return written


def fields(run: RunReader) -> list[Field]:
    """Return the columns of ``run``, metrics in the order of the glossary."""
    found = []
    for metric in run.layout.metrics:
        for column in run.layout.of_metric(metric):
            known = describe(metric, Place.LAYER if column.layer else Place.RUN)
            heads = [None] if known.place is not Place.HEAD and column.size == 1 else list(range(column.size))
            for head in heads:
                parts = (metric, column.layer, None if head is None else f"head {head}")
                name = legible("/".join(part for part in parts if part is not None))
                found.append(Field(name, metric, column.layer, head, known.unit, known.text))
    return found


def blocks(run: RunReader) -> Iterator[_Block]:
    """Yield all steps at which ``run`` has a number, in order, at most ``BLOCK`` at once."""
    steps = _steps(run)
    for at in range(0, len(steps), BLOCK):
        yield _block(run, steps[at : at + BLOCK])


def _steps(run: RunReader) -> npt.NDArray[np.int64]:
    """Return the steps of the samples, and those of numbers that the training logged between them."""
    metrics = run.layout.metrics
    sampled = [metric for metric in metrics if not is_own(run.layout, metric)]
    logged = [metric for metric in metrics if metric not in sampled]
    found = [run.read(metric).steps for metric in (*sampled[:1], *logged)]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _block(run: RunReader, steps: npt.NDArray[np.int64]) -> _Block:
    times = np.full(len(steps), np.nan)
    parts = []
    for metric in run.layout.metrics:
        read = run.read(metric, start=int(steps[0]), stop=int(steps[-1]) + 1)
        same = np.isin(read.steps, steps)  # a run that goes on, or that was resumed meanwhile, may have others
        rows = np.searchsorted(steps, read.steps[same])
        part = np.full((len(steps), read.values.shape[1]), MISSING, np.float32)
        part[rows] = read.values[same]
        parts.append(part)
        if read.times is not None:
            times[rows] = read.times[same]
    return _Block(steps, times, np.concatenate(parts, axis=1))


def _csv(run: RunReader, file: Path) -> int:
    written = 0
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["step", "time [s]", *(f"{one.name} [{one.unit}]" for one in fields(run))])
        for block in blocks(run):
            writer.writerows(_lines(block))
            written += len(block.steps)
    return written


def _lines(block: _Block) -> Iterable[list[object]]:
    """Yield lines; the shortest decimals that are the same float32."""
    texts = block.values.astype(str)
    texts[texts == "nan"] = "NaN"
    texts[is_missing(block.values)] = ""
    for step, time, cells in zip(block.steps.tolist(), block.times.tolist(), texts.tolist(), strict=True):
        yield [step, time, *cells]


def _parquet(run: RunReader, file: Path) -> int:
    arrow: Any
    parquet: Any
    try:
        arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        raise ExportError("Parquet needs pyarrow: `pip install 'stabmon[parquet]'`, or take --format csv") from None
    about = {"step": arrow.int64(), "time": arrow.timestamp("us", tz="UTC")}
    numbers = [
        arrow.field(one.name, arrow.float32(), metadata={"unit": one.unit, "definition": one.text})
        for one in fields(run)
    ]
    schema = arrow.schema([*about.items(), *numbers], metadata={"stabmon": run.info.model_dump_json()})
    written = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for block in blocks(run):
            times = arrow.array((block.times * 1e6).round().astype(np.int64)).cast(about["time"])
            columns = [arrow.array(own, mask=is_missing(own)) for own in map(np.ascontiguousarray, block.values.T)]
            writer.write_table(arrow.Table.from_arrays([arrow.array(block.steps), times, *columns], schema=schema))
            written += len(block.steps)
    return written


WRITERS = {"csv": _csv, "parquet": _parquet}
