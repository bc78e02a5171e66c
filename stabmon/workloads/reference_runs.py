"""The trainings that each rule's reference plot shows: trained, checked against the rule, and reduced to curves."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stabmon.config import override
from stabmon.errors import StabmonError
from stabmon.rules import replay
from stabmon.rules.gallery import Curves, ReferenceRuns
from stabmon.rules.limits import documents
from stabmon.series import Floats, over_heads
from stabmon.store import RunReader, open_run
from stabmon.workloads import training
from stabmon.workloads.reference_trainings import TRAININGS

POINTS, LINES = 90, 4
"""Most points of a curve; most layers that are drawn."""
LONGER, SOUND = "CFG002", "sound"
"""The rule whose plot is over numbers of keys; the training that most plots show as the good one."""
LENGTHS = (64, 128, 256, 512, 1024)
"""Numbers of keys at which CFG002's model is evaluated."""
WEIGHTS = "weights.pt"
Lines = dict[str, Floats]
"""Values by layer or head."""


class Pair(NamedTuple):
    """The content of one rule's plot: a metric of a training that the rule flags and of one that it does not flag."""

    code: str
    metric: str
    bad: str
    good: str = SOUND
    limit: str | None = None
    """Name of the limit that is drawn."""
    steps: int = 160
    """First steps that are drawn."""
    layer: str | None = None
    """Draw the heads of this layer; None draws one line a layer."""


PAIRS = (
    Pair("ATT001", "row_mass", "no-bias", limit="att.row_mass_max"),
    Pair("ATT002", "row_mass", "starved", limit="att.row_mass_min"),
    Pair("ATT003", "logit_std", "hot", "hot-qk-norm", limit="att.logit_std_max"),
    Pair("ATT004", "saturated_fraction", "hot", "hot-qk-norm", limit="att.saturated_fraction_max"),
    Pair("ATT005", "attention_norm", "hot", "hot-qk-norm"),
    Pair("ATT006", "row_mass", "dead-layer", limit="att.dead_row_mass_max"),
    Pair("ATT007", "attention_norm", "uneven-heads", layer="layers.1"),
    Pair("ATT008", "query_norm", "hot", "hot-qk-norm"),
    Pair("ATT009", "query_norm", "narrow-heads", "wide-head"),
    Pair("CFG001", "row_mass", "other-bias"),
    Pair("CFG002", "loss", "longer-evaluation"),
    Pair("GRD001", "total_gradient_norm", "diverging"),
    Pair("GRD002", "total_gradient_norm", "summed-loss"),
    Pair("GRD003", "total_gradient_norm", "slow"),
    Pair("GRD004", "total_gradient_norm", "tiny-loss", steps=60),
    Pair("GRD005", "gradient_norm", "deep-large-weights", "deep", steps=20),
    Pair("LOS001", "loss", "speech-bad-batch", "speech"),
    Pair("LOS002", "loss", "diverging"),
    Pair("LOS003", "loss", "stuck"),
    Pair("LOS004", "loss", "bad-batch"),
    Pair("NUM001", "loss", "infinite-gradient", steps=60),
    Pair("NUM002", "total_gradient_norm", "overflow", steps=60),
    Pair("NUM003", "residual_out", "fp16-hot", "fp16", limit="num.fp16_rms_max", steps=60),
    Pair("NUM004", "residual_in", "tiny-embedding", steps=60),
    Pair("RES001", "branch_ratio", "long-no-bias", "long", limit="res.branch_ratio_max", steps=20),
    Pair("RES002", "block_growth", "large-feed-forward", limit="res.feed_forward_growth_max", steps=60),
    Pair("RES003", "residual_out", "post-norm"),
    Pair("RES004", "branch_ratio", "vision-deep", "vision-deep-layer-scale", "res.deep_branch_ratio_min", steps=60),
    Pair("UPD001", "residual_out", "no-warm-up", "warm", steps=60),
    Pair("UPD002", "residual_out", "hot", "warm", steps=100),
)


def record(folder: Path, device: str, codes: Collection[str] = ()) -> Iterator[ReferenceRuns]:
    """Yield the reference runs of ``codes``, or of all rules; trainings that ``folder`` has already are not repeated.

    Raises:
        StabmonError: a rule does not flag its bad run, or flags its good one.
    """
    for pair in PAIRS:
        if codes and pair.code not in codes:
            continue
        for name in (pair.bad, pair.good):
            _train(name, folder, device)
        bad, good = (_curves(pair, name, folder, device) for name in (pair.bad, pair.good))
        if bad.flagged is None or good.flagged is not None:
            steps = f"got steps {bad.flagged} and {good.flagged}"
            raise StabmonError(f"{pair.code} must flag {pair.bad!r} and must not flag {pair.good!r}, {steps}")
        across = "step" if pair.code != LONGER else "keys"
        limit = None if pair.limit is None else _default(pair.limit)
        yield ReferenceRuns(code=pair.code, metric=pair.metric, limit=limit, across=across, bad=bad, good=good)


def _default(limit: str) -> float:
    return next(document.default for document in documents() if document.name == limit)


def _train(name: str, folder: Path, device: str) -> None:
    """Train ``name`` into ``folder``, unless it was trained to the end there; the last file written is the weights'."""
    weights, wanted = folder / name / WEIGHTS, TRAININGS[name]
    if weights.exists():
        return
    rmtree(folder / name, ignore_errors=True)
    model = training.build(wanted.config, device)
    wanted.change(model)
    training.train(
        wanted.config, model=model, directory=folder, name=name, device=device, intervention=wanted.intervention
    )
    torch.save(model.state_dict(), weights)


def _curves(pair: Pair, name: str, folder: Path, device: str) -> Curves:
    """Return what the plot of ``pair`` shows of the training ``name``."""
    about, config = TRAININGS[name].about, TRAININGS[name].config
    with open_run(folder / name) as reader:
        flagged = min((finding.opened for finding in replay(reader) if finding.code == pair.code), default=None)
        loss = float(np.mean(reader.read("loss").values[-training.FINAL :].astype(np.float64)))
        if pair.code == LONGER:
            about, steps, lines = _over_lengths(name, folder, device)
        else:
            steps, lines = _over_steps(reader, pair)
    model = f"{config.workload}, {config.model.layers} layers of width {config.model.width}, n = {config.model.context}"
    return Curves(
        about=about,
        source=f"{model}, batch {config.training.batch}, {device}, torch {torch.__version__.partition('+')[0]}",
        flagged=flagged,
        steps=steps,
        lines={label: tuple(_rounded(value) for value in values) for label, values in lines.items()},
        loss=round(loss, 4) if math.isfinite(loss) and pair.code != LONGER else None,
    )


def _over_steps(reader: RunReader, pair: Pair) -> tuple[tuple[float, ...], Lines]:
    """Return the steps that are kept, and one line a layer or, of a single layer, a head; at most four."""
    read = reader.read(pair.metric, layer=pair.layer, stop=pair.steps)
    if pair.layer is not None or read.spots[0].layer is None:
        lines = {
            "run" if spot.head is None else f"head {spot.head}": read.values[:, at]
            for at, spot in enumerate(read.spots)
        }
    else:
        layers = list(dict.fromkeys(spot.layer for spot in read.spots))
        shown = layers if len(layers) <= LINES else [layers[round(at)] for at in np.linspace(0, len(layers) - 1, LINES)]
        columns = {layer: [at for at, spot in enumerate(read.spots) if spot.layer == layer] for layer in shown}
        lines = {str(layer): over_heads(pair.metric, read.values[:, at]) for layer, at in columns.items()}
    kept = _kept(np.stack(list(lines.values())))
    return tuple(float(step) for step in read.steps[kept]), {label: values[kept] for label, values in lines.items()}


def _kept(lines: Floats) -> npt.NDArray[np.intp]:
    """Return at most ``POINTS`` samples of ``lines`` [lines, samples]: of neighbours the farthest from the median."""
    samples = lines.shape[1]
    size = -(-samples // POINTS)
    with np.errstate(all="ignore"):
        away = np.nan_to_num(np.abs(lines - np.nanmedian(lines, axis=1, keepdims=True)), nan=np.inf).max(axis=0)
    kept = [start + int(np.argmax(away[start : start + size])) for start in range(0, samples, size)]
    return np.unique([0, *kept[1:-1], samples - 1])


def _over_lengths(name: str, folder: Path, device: str) -> tuple[str, tuple[float, ...], Lines]:
    """Return the validation loss of the sound model at other numbers of keys, with one bias or with that of each."""
    config = TRAININGS[name].config
    is_adapted = name == SOUND
    losses = []
    for keys in LENGTHS:
        sized = override(config, {"model.context": keys})
        model = training.build(sized, device)
        state = torch.load(folder / name / WEIGHTS, map_location=device)
        if is_adapted:
            state = {key: value for key, value in state.items() if not key.endswith("attention.bias")}
        model.load_state_dict(state, strict=not is_adapted)
        losses.append(training.validate(sized, model, keys, device))
    about = "the same model, b = -log n of each length" if is_adapted else TRAININGS[name].about
    return about, tuple(float(keys) for keys in LENGTHS), {"evaluation": np.array(losses, np.float32)}


def _rounded(value: float) -> float | None:
    """Return ``value`` to four digits; None for what is not finite, as JSON has no such number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
