"""Runs written down as a few lines of YAML: facts of the model, and what each metric is over the steps.

A metric is a number, a list with one entry a step, or a mapping: ``from``/``to`` (geometric), ``around``/``noise``
(a fixed draw), and ``set`` with single steps. ``layers.1/row_mass`` names one layer, ``layers.1:2/row_mass`` of one
head of it. A missing entry is written null.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from stabmon.findings import Finding
from stabmon.metrics import METRICS, Place
from stabmon.records import Attention, ModelMap, NormInput, RunInfo
from stabmon.rules import Engine
from stabmon.series import MISSING, Floats, Layout


class Written(NamedTuple):
    info: RunInfo
    layout: Layout
    steps: list[int]
    rows: Floats

    def engine(self, **options: Any) -> Engine:
        return Engine(self.info, self.layout, **options)

    def findings(self, **options: Any) -> tuple[Finding, ...]:
        engine = self.engine(**options)
        for step, row in zip(self.steps, self.rows, strict=True):
            engine.observe(step, row)
        return engine.findings


def _model(facts: Mapping[str, Any]) -> ModelMap:
    given = dict(facts)
    norms = tuple(NormInput(**norm) for norm in given.pop("small_norms", ()))
    layers, kind, heads = given.pop("layers", 2), given.pop("kind", "sigmoid"), given.pop("heads", 4)
    attentions = [
        Attention(
            layer=f"layers.{i}",
            module=f"layers.{i}.attention",
            block=f"layers.{i}",
            branch=f"layers.{i}.attention_scale",
            kind=kind,
            heads=heads,
            head_dim=given.get("head_dim", 64),
            **{key: value for key, value in given.items() if key != "head_dim"},
        )
        for i in range(layers)
    ]
    return ModelMap(attentions=tuple(attentions), parameters=1, small_norms=norms)


def _path(wanted: Any, samples: int) -> Floats:
    if not isinstance(wanted, Mapping):
        entries = wanted if isinstance(wanted, list) else [wanted] * samples
        assert len(entries) == samples, f"{len(entries)} entries for {samples} steps"
        return np.array([MISSING if entry is None else np.float32(entry) for entry in entries], np.float32)
    if "from" in wanted:
        path = np.geomspace(wanted["from"], wanted["to"], samples)
    else:
        path = wanted["around"] + wanted.get("noise", 0) * np.random.default_rng(7).standard_normal(samples)
    narrow: Floats = path.astype(np.float32)
    for at, value in wanted.get("set", {}).items():
        narrow[at] = MISSING if value is None else value
    return narrow


def write_down(text: Mapping[str, Any]) -> Written:
    """Make the run that ``text`` describes: ``model``, ``steps`` (a count or a list), ``series`` and ``config``."""
    model = _model(text.get("model", {}))
    steps = text.get("steps", 1)
    steps = list(range(steps)) if isinstance(steps, int) else steps
    wanted: list[tuple[str, str | None, int]] = []
    for metric in dict.fromkeys(name.rpartition("/")[2] for name in text["series"]):
        place = METRICS[metric].place
        sizes = {Place.HEAD: model.attentions[0].heads, Place.LAYER: 1}
        layers = [attention.layer for attention in model.attentions]
        wanted += [(metric, None, 1)] if place is Place.RUN else [(metric, layer, sizes[place]) for layer in layers]
    layout = Layout.of(wanted)
    rows = np.full((len(steps), layout.width), MISSING, np.float32)
    for name, value in text["series"].items():
        where, _, metric = name.rpartition("/")
        layer, _, head = where.partition(":")
        for column in layout.of_metric(metric):
            if layer in ("", column.layer):
                first = column.start + int(head or 0)
                rows[:, first : first + (1 if head else column.size)] = _path(value, len(steps))[:, None]
    info = RunInfo(name="case", created=datetime(2026, 1, 1), model=model, config=text.get("config", {}))
    return Written(info, layout, steps, rows)


@pytest.fixture
def written() -> Callable[[Mapping[str, Any]], Written]:
    return write_down


@pytest.fixture
def case() -> Callable[[Path], tuple[Written, list[dict[str, Any]]]]:
    def read(file: Path) -> tuple[Written, list[dict[str, Any]]]:
        text = yaml.safe_load(file.read_text(encoding="utf-8"))
        return write_down(text), text.get("expect", [])

    return read
