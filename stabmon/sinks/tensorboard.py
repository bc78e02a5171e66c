"""TensorBoard: about a hundred tags, however deep the model and however many heads it has.

Curves of one number a layer (``attention_norm/layers.03``) and of the run, heatmaps of all layers over the recent
samples and of all heads now, a line for a finding that opens and all findings as a table at the end, the configuration
for the page of hyperparameters, and a layout for that of custom scalars. Names are zero-padded,
because TensorBoard sorts as text. In a model with more layers than there is room for, evenly spaced ones have curves,
the first and the last among them; the heatmaps show all.

What is written thins out as the run grows, so that the file grows as its logarithm. Curves have every sample up to
``POINTS`` (at least ``APART`` seconds apart), then one for each ``POINTS``-th of the run so far; heatmaps one for each
quarter. Always written are the steps at which a finding opens, becomes more
severe or clears and the first number that is not finite; of a finding or a number that repeats itself the 2nd, 4th,
8th time and so on.
"""

import math
import time as clock
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary

from stabmon.findings import Finding, Key
from stabmon.formatting import flat, number, plural
from stabmon.metrics import METRICS, Shown
from stabmon.records import Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout, Logged, is_missing
from stabmon.sinks import events, findings_table, heatmap
from stabmon.sinks.curves import CURVES, Curve, curves, of_run, shown
from stabmon.sinks.spacing import Apart, Spacing, counts
from stabmon.store.column_selection import ColumnSelection, select_columns

POINTS = 500
"""Samples that all have a point, and the share of the run so far, one in so many, between two later points."""
IMAGES = 4
"""The same share for heatmaps."""
LINES = 100
"""Most lines for findings that open: TensorBoard shows all texts below one another."""
KEPT = 64
"""Latest samples that are kept, for the rules are some samples behind."""

RECENT = 400
"""Samples in a heatmap over steps."""

APART = 0.5
"""Least seconds between two points of a curve: TensorBoard shows a thousand at most, and writing one costs the training
more than storing it."""

_ABOUT = "{text}, the first layer at the bottom, {across}. {scale}"
_ACROSS = f"the latest {RECENT} samples or fewer from left to right"


class TensorBoardSink:
    """Writes event files into ``folder``; images every ``images_every`` samples or more, and when the run is closed."""

    name = "TensorBoard"
    advice = "points are missing in TensorBoard, the store keeps them; look whether the disk is full"

    def __init__(self, folder: Path, *, images_every: int = 100) -> None:
        self.folder = Path(folder)
        self._file: events.EventFile | None = None
        self._curves: list[Curve] = []
        self._heatmaps: list[_Heatmap] = []
        self._findings: dict[Key, Finding] = {}
        self._opening: list[Summary.Value] = []
        self._samples = 0
        self._step = -1
        self._point, self._image = Spacing(1, POINTS), Spacing(images_every, IMAGES)
        self._lines = 0
        self._apart = Apart(APART)
        self._kept: dict[int, tuple[float, Floats]] = {}
        """The latest samples that were not written, by step."""
        self._is_odd, self._odd_times = False, 0
        self._own: dict[str, _OwnCurve] = {}
        """Numbers that are logged between samples."""

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Open the event file; the custom-scalars layout and what the run is go with the first sample."""
        self._curves = list(curves(layout))
        self._heatmaps = [_Heatmap(select_columns(layout, metric, None)) for metric in shown(layout, Shown.HEATMAP)]
        self._file = events.EventFile(self.folder)
        self._opening = [events.layout(_pages(layout)), events.text("about", _about(info, layout))]
        if settings := flat(info.config):
            self._opening += events.hyperparameters(settings, info.name)

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Write the curves' points and the images where it is time for them."""
        if self._file is None:
            return
        for drawn in self._heatmaps:
            drawn.take(values)
        restart, self._step = step <= self._step or not self._samples, step
        self._samples += 1
        if restart:
            self._kept.clear()
        self._kept[step] = time, values
        images = self._images() if self._image.due(self._samples) else []
        due = self._point.due(self._samples) and self._apart.due(time)
        if self._turns_odd(values) or restart or images or due:
            self._write(step, images, restart=restart)
        elif len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def _turns_odd(self, values: Floats) -> bool:
        """Return whether a number ceases to be finite here, and that has not happened too often to be written."""
        before, self._is_odd = self._is_odd, _is_odd(values)
        turns = self._is_odd and not before
        self._odd_times += turns
        return turns and counts(self._odd_times)

    def _write(self, step: int, images: list[Summary.Value], *, restart: bool = False) -> None:
        """Write the points of ``step``, which is kept, and the images."""
        assert self._file is not None
        time, values = self._kept.pop(step)
        self._apart.written(time)
        self._point.written(self._samples)
        if images:
            self._image.written(self._samples)
        points, self._opening = self._opening, []
        for curve in self._curves:
            points += (events.scalar(tag, value) for tag, value in curve.numbers(values))
        self._file.add(step, time, points + images, restart=restart)

    def logged(self, values: Sequence[Logged]) -> None:
        """Write numbers that were logged between samples, spaced as the samples are."""
        if self._file is None:
            return
        for one in values:
            self._own.setdefault(one.metric, _OwnCurve()).take(self._file, one)

    def resumed(self, findings: Sequence[Finding]) -> None:
        """Remember the findings of the run's earlier part: the next table shows them too."""
        self._findings.update({finding.key: finding for finding in findings})

    def heartbeat(self, beat: Heartbeat) -> None:
        """Look whether the file is still there.

        Raises:
            OSError: it was deleted.
        """
        if self._file is not None:
            self._file.check()

    def findings(self, changed: Sequence[Finding]) -> None:
        """Write the steps at which a finding opened, became more severe or cleared; and a line for what is new."""
        steps = {step for finding in changed for step in _events(self._findings.get(finding.key), finding)}
        new = [finding for finding in changed if finding.key not in self._findings]
        self._findings.update({finding.key: finding for finding in changed})
        for step in sorted(steps & self._kept.keys()):
            self._write(step, [])
        if self._file is None:
            return
        for finding in new[: LINES - self._lines]:
            self._file.add(finding.opened, clock.time(), [events.text("finding opened", str(finding))])
            self._lines += 1

    def discard(self) -> None:
        """Remove the file of a run that has not begun."""
        if self._file is not None:
            self._file.close()
            self._file.path.unlink(missing_ok=True)
            self._file = None

    def close(self, state: RunState) -> None:
        """Write the latest sample, the images and the table a last time and close the file."""
        if self._file is None:
            return
        file = self._file
        try:
            for curve in self._own.values():
                curve.write(file)
            if self._step in self._kept:
                self._write(self._step, self._images())
            elif self._samples:
                file.add(self._step, clock.time(), self._images())
            if self._findings:
                table = findings_table.markdown(self._findings.values())
                file.add(self._step, clock.time(), [events.text("findings", table)])
        finally:
            self._file = None
            file.close()

    def _images(self) -> list[Summary.Value]:
        return [value for drawn in self._heatmaps for value in drawn.images()]


def _is_odd(values: Floats) -> bool:
    """Return whether a number was measured and is not finite."""
    return bool((~np.isfinite(values) & ~is_missing(values)).any())


def _events(before: Finding | None, now: Finding) -> Iterator[int]:
    """Yield the steps at which a finding opened, became more severe or cleared since ``before``."""
    if before is None:
        yield now.opened
    elif now.severity is not before.severity:
        yield now.last
    if not counts(now.times):
        return
    if before is not None and now.times != before.times:
        yield now.since
    if now.cleared is not None and (before is None or before.cleared is None):
        yield now.cleared


class _OwnCurve:
    """A number that the training logs between samples."""

    def __init__(self) -> None:
        self._count, self._odd = 0, 0
        self._point = Spacing(1, POINTS)
        self._apart = Apart(APART)
        self._unwritten: Logged | None = None

    def take(self, file: events.EventFile, one: Logged) -> None:
        """Write a point where it is time for it, or where the number is not finite, unless that goes on."""
        self._unwritten = one
        self._count += 1
        self._odd += not math.isfinite(one.value)
        due = self._point.due(self._count) and self._apart.due(one.time)
        if due or (not math.isfinite(one.value) and counts(self._odd)):
            self.write(file)

    def write(self, file: events.EventFile) -> None:
        """Write the latest point, unless it is written."""
        one, self._unwritten = self._unwritten, None
        if one is not None:
            self._point.written(self._count)
            self._apart.written(one.time)
            file.add(one.step, one.time, [events.scalar(one.metric, one.value)])


class _Heatmap:
    """One metric: all layers over the recent samples, and all heads at the latest."""

    def __init__(self, chosen: ColumnSelection) -> None:
        self.chosen = chosen
        self._reference = METRICS[chosen.metric].healthy
        self._recent: deque[Floats] = deque(maxlen=RECENT)
        self._latest: Floats = np.empty(0, np.float32)

    def take(self, values: Floats) -> None:
        self._latest = values[self.chosen.columns]
        self._recent.append(self._latest)

    def images(self) -> Iterator[Summary.Value]:
        """Yield the images; the first layer is at the bottom, as on the page."""
        metric = self.chosen.metric
        layers = self.chosen.reduced().shaped(np.stack(self._recent)).T
        yield self._image(f"heatmap/{metric}.layers", layers, _ACROSS, width=max(1, 600 // len(self._recent)))
        heads = set(self.chosen.heads)
        if len(heads) == 1 and heads != {1}:
            cells = self._latest.reshape(len(self.chosen.heads), -1)
            yield self._image(f"heatmap/{metric}.heads", cells, "heads from the left", width=16)

    def _image(self, tag: str, cells: Floats, across: str, width: int) -> Summary.Value:
        if self._reference is None:
            scale, palette = heatmap.RISING_SCALE, heatmap.RISING
        else:
            scale, palette = f"Reference: {number(self._reference)}. {heatmap.SCALE}", heatmap.PALETTE
        about = _ABOUT.format(text=METRICS[self.chosen.metric].text, across=across, scale=scale)
        shades = heatmap.indices(cells[::-1], self._reference)
        encoded, height, total = heatmap.png(shades, min(width, 16), 16, palette)
        return events.image(tag, encoded, height, total, about)


def _pages(layout: Layout) -> dict[str, dict[str, str]]:
    """Return the custom-scalars page: the run's own numbers, then one chart a metric with all its layers."""
    by_layer = shown(layout, Shown.CURVE)
    return {
        "run": {name: f"^{name}$" for name in of_run(layout)},
        "layers": {f"{metric}: {METRICS[metric].text}": f"^{metric}/" for metric in by_layer},
    }


def _about(info: RunInfo, layout: Layout) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
    layers = max((len(layout.layers(metric)) for metric in layout.metrics), default=0)
    room = CURVES // max(1, len(shown(layout, Shown.CURVE)))
    some = f" Curves are of {room} evenly spaced layers, the heatmaps show all." if layers > room else ""
    return f"**{info.name}**: {plural(layers, 'layer')}, {info.model.parameters:,} parameters, {versions}.{some}"
