"""The grids: groups of arms that share a model's size, data and length of training, and the claims about them."""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from stabmon.config import RunConfig
from stabmon.fixes.row_mass import alibi_bias
from stabmon.reproduction.claims import Claim

Subset = Literal["quick", "cpu", "gpu"]
PAPER, REMEMBERED, ISSUE = "arXiv 2409.04431", "arXiv 2409.04431, as remembered", "measured on foreign models"
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
LONGER = 4
"""Length of the evaluation on longer input over that of the training."""


class ArmGroup(NamedTuple):
    """Arms that are compared with one another.

    base: a run's configuration without its name. arms: dotted keys and values by name. seeds: how often each is run.
    """

    name: str
    base: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: int
    claims: tuple[Claim, ...]


def runs(groups: tuple[ArmGroup, ...]) -> Iterator[RunConfig]:
    """Yield every run, the first seed of all groups first, so that a grid that is cut off has whole claims."""
    for seed in range(max(group.seeds for group in groups)):
        for group in groups:
            if seed < group.seeds:
                yield from (_run(group, arm, seed) for arm in group.arms)


def name_of(group: ArmGroup, arm: str, seed: int) -> str:
    """Return the name of a run and of its folder."""
    return f"{group.name}.{arm}.{seed}"


def _run(group: ArmGroup, arm: str, seed: int) -> RunConfig:
    values = {section: dict(part) if isinstance(part, dict) else part for section, part in group.base.items()}
    for key, value in group.arms[arm].items():
        section, name = key.split(".")
        values[section][name] = value
    values["training"]["seed"] = seed
    return RunConfig.model_validate({"name": name_of(group, arm, seed), **values})


def groups_of(subset: Subset) -> tuple[ArmGroup, ...]:
    """Return the groups of a subset, the slowest first."""
    if subset == "quick":
        return (
            _bias("bias", _language(2, 48, 2, 512, steps=60, batch=2, rate=3e-3, precision="fp32"), seeds=2),
            _rates("rates", _language(2, 48, 2, 64, steps=60, batch=8, precision="fp32"), (1e-3, 1e-1), seeds=2),
        )
    if subset == "cpu":
        return (
            _bias("bias", _language(2, 64, 2, 1024, steps=150, batch=2, rate=2e-3, precision="fp32"), seeds=3),
            _rates(
                "rates", _language(2, 64, 2, 128, steps=120, batch=8, precision="fp32"), (1e-3, 1e-2, 1e-1), seeds=3
            ),
            _vision("vision", _images(4, 48, 2, steps=120, batch=16, precision="fp32"), seeds=3),
        )
    return (
        _bias("bias-4096", _language(4, 256, 2, 4096, steps=600, batch=4), seeds=3),
        _hybrid("hybrid-2048", _language(4, 256, 2, 2048, steps=600, batch=8), seeds=3),
        _vision("vision", _images(12, 96, 3, steps=300, batch=32), seeds=3),
        _positions("positions-1024", _language(4, 256, 4, 1024, steps=300, batch=8), seeds=3),
        _lengths("lengths-256", _language(4, 256, 4, 256, steps=300, batch=32), seeds=3),
        _rates("rates-512", _language(4, 256, 4, 512, steps=200, batch=16), RATES, seeds=2),
    )


def _language(
    layers: int,
    width: int,
    heads: int,
    context: int,
    *,
    steps: int,
    batch: int,
    rate: float = 1e-3,
    precision: str = "bf16",
) -> dict[str, Any]:
    model = {"layers": layers, "width": width, "heads": heads, "context": context, "position": "rope"}
    training = {"steps": steps, "batch": batch, "learning_rate": rate, "warmup": steps // 10, "clip": 1.0}
    return {
        "workload": "language",
        "model": {**model, "bias": "length"},
        "training": {**training, "precision": precision},
        "monitor": {"dense": 60, "every": 10},
    }


def _images(layers: int, width: int, heads: int, *, steps: int, batch: int, precision: str = "bf16") -> dict[str, Any]:
    base = _language(layers, width, heads, 144, steps=steps, batch=batch, precision=precision)
    return {**base, "workload": "vision", "model": {**base["model"], "position": "learned"}}


SOFTMAX: dict[str, Any] = {"model.attention": "softmax"}
ZERO: dict[str, Any] = {"model.bias": 0.0}
NORMED: dict[str, Any] = {"model.qk_norm": True}
HYBRID: dict[str, Any] = {"model.hybrid_norm": True}


def _bias(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    arms: dict[str, dict[str, Any]] = {
        "softmax": SOFTMAX,
        "length": {},
        "softmax-qk": SOFTMAX | NORMED,
        "zero-qk": ZERO | NORMED,
        "length-qk": NORMED,
        "learnable-qk": NORMED | {"model.bias": "learnable"},
        "hybrid-qk": NORMED | HYBRID,
    }
    length = base["model"]["context"]
    return ArmGroup(
        name,
        base,
        arms,
        seeds,
        (
            _claim(
                name, "b = -log n", f"at n = {length} b = -log n is better than b = 0", PAPER, "length-qk", "zero-qk"
            ),
            _claim(name, "learnable b", "a learnable b is better than b = 0", REMEMBERED, "learnable-qk", "zero-qk"),
            _claim(name, "QK norm", "QK norm helps b = -log n", PAPER, "length-qk", "length"),
            _claim(name, "hybrid norm", f"at n = {length} hybrid norm helps on top", PAPER, "hybrid-qk", "length-qk"),
            _claim(
                name,
                "sigmoid = softmax",
                "with b and QK norm sigmoid ends level with softmax",
                PAPER,
                "length-qk",
                "softmax-qk",
                expect="level",
            ),
            _claim(
                name,
                "sigmoid = softmax, hybrid norm",
                "with hybrid norm too sigmoid ends level with softmax",
                PAPER,
                "hybrid-qk",
                "softmax-qk",
                expect="level",
            ),
        ),
    )


def _hybrid(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    arms: dict[str, dict[str, Any]] = {
        "softmax-qk": SOFTMAX | NORMED,
        "length-qk": NORMED,
        "hybrid-qk": NORMED | HYBRID,
    }
    length = base["model"]["context"]
    return ArmGroup(
        name,
        base,
        arms,
        seeds,
        (
            _claim(
                name,
                "hybrid norm",
                f"at n = {length} hybrid norm is not needed",
                PAPER,
                "hybrid-qk",
                "length-qk",
                expect="level",
            ),
            _claim(
                name,
                "sigmoid = softmax",
                "with b and QK norm sigmoid ends level with softmax",
                PAPER,
                "length-qk",
                "softmax-qk",
                expect="level",
            ),
        ),
    )


def _vision(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    scale: dict[str, Any] = {"model.layer_scale": 1e-4}
    arms: dict[str, dict[str, Any]] = {
        "softmax": SOFTMAX,
        "zero": ZERO,
        "length": {},
        "length-qk": NORMED,
        "zero-scale": ZERO | scale,
        "softmax-scale": SOFTMAX | scale,
    }
    return ArmGroup(
        name,
        base,
        arms,
        seeds,
        (
            _claim(
                name, "LayerScale", "without b LayerScale 1e-4 is better than none", REMEMBERED, "zero-scale", "zero"
            ),
            _claim(
                name,
                "LayerScale = softmax",
                "with LayerScale and no b sigmoid ends level with softmax",
                PAPER,
                "zero-scale",
                "softmax-scale",
                expect="level",
            ),
            _claim(name, "no b needed", "b = -log n and b = 0 end level", REMEMBERED, "length", "zero", expect="level"),
            _claim(
                name,
                "sigmoid = softmax",
                "with b sigmoid ends level with softmax",
                PAPER,
                "length",
                "softmax",
                expect="level",
            ),
        ),
    )


def _positions(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    model = base["model"]
    fitted = round(alibi_bias(model["heads"], model["context"], True), 2)
    arms: dict[str, dict[str, Any]] = {}
    for position in ("rope", "alibi", "learned"):
        here: dict[str, Any] = {"model.position": position}
        arms[f"{position}-softmax"] = here | SOFTMAX
        arms[f"{position}-zero"] = here | ZERO
        arms[f"{position}-fitted"] = here | ({"model.bias": fitted} if position == "alibi" else {})
    claims = []
    for position in ("rope", "learned", "alibi"):
        claims.append(
            _claim(
                name,
                f"b under {position}",
                f"under {position} positions a b at which rows sum to one is better than b = 0",
                PAPER,
                f"{position}-fitted",
                f"{position}-zero",
            )
        )
        claims.append(
            _claim(
                name,
                f"sigmoid = softmax, {position}",
                f"under {position} positions sigmoid with b ends level with softmax",
                PAPER,
                f"{position}-fitted",
                f"{position}-softmax",
                expect="level",
            )
        )
    return ArmGroup(name, base, arms, seeds, tuple(claims))


def _lengths(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    length = base["model"]["context"]
    base = {**base, "training": {**base["training"], "evaluate_length": LONGER * length}}
    fitted = round(alibi_bias(base["model"]["heads"], length, True), 2)
    alibi: dict[str, Any] = {"model.position": "alibi"}
    arms: dict[str, dict[str, Any]] = {
        "rope-fixed": {},
        "rope-longer-b": {"model.bias": round(-math.log(LONGER * length), 2)},
        "rope-softmax": SOFTMAX,
        "alibi-fitted": alibi | {"model.bias": fitted},
        "alibi-softmax": alibi | SOFTMAX,
    }
    beyond = f"at {LONGER} times the training's length"
    return ArmGroup(
        name,
        base,
        arms,
        seeds,
        (
            _claim(
                name,
                "fixed b, longer input",
                f"{beyond} softmax loses less than sigmoid with b = -log n",
                "arXiv 2501.13428",
                "rope-softmax",
                "rope-fixed",
                longer=True,
            ),
            _claim(
                name,
                "b for longer input",
                f"{beyond} a model with b for that length is better",
                PAPER,
                "rope-longer-b",
                "rope-fixed",
                longer=True,
            ),
            _claim(
                name,
                "ALiBi on longer input",
                f"{beyond} sigmoid under ALiBi is better than under RoPE",
                PAPER,
                "alibi-fitted",
                "rope-fixed",
                longer=True,
            ),
            _claim(
                name,
                "ALiBi = softmax, longer",
                f"{beyond} sigmoid under ALiBi is level with softmax under ALiBi",
                PAPER,
                "alibi-fitted",
                "alibi-softmax",
                expect="level",
                longer=True,
            ),
        ),
    )


def _rates(name: str, base: dict[str, Any], rates: tuple[float, ...], seeds: int) -> ArmGroup:
    kinds: dict[str, dict[str, Any]] = {
        "softmax": SOFTMAX,
        "softmax-qk": SOFTMAX | NORMED,
        "length": {},
        "length-qk": NORMED,
    }
    arms: dict[str, dict[str, Any]] = {
        f"{kind}-{rate:g}": {**changes, "training.learning_rate": rate}
        for rate in rates
        for kind, changes in kinds.items()
    }
    sides = {kind: tuple(f"{kind}-{rate:g}" for rate in rates) for kind in kinds}
    return ArmGroup(
        name,
        base,
        arms,
        seeds,
        (
            _claim(
                name,
                "QK norm, sigmoid",
                "QK norm makes sigmoid less sensitive to the learning rate",
                "arXiv 2309.14322",
                sides["length-qk"],
                sides["length"],
                sensitivity=True,
            ),
            _claim(
                name,
                "QK norm, softmax",
                "QK norm makes softmax less sensitive to the learning rate",
                "arXiv 2309.14322",
                sides["softmax-qk"],
                sides["softmax"],
                sensitivity=True,
            ),
            _claim(
                name,
                "sigmoid = softmax over rates",
                "with QK norm sigmoid and softmax are as sensitive",
                PAPER,
                sides["length-qk"],
                sides["softmax-qk"],
                expect="level",
                sensitivity=True,
            ),
        ),
    )


def _claim(
    group: str,
    name: str,
    says: str,
    source: str,
    left: str | tuple[str, ...],
    right: str | tuple[str, ...],
    **more: Any,
) -> Claim:
    sides = ((side,) if isinstance(side, str) else side for side in (left, right))
    ours, theirs = (tuple(f"{group}.{arm}" for arm in side) for side in sides)
    return Claim(name=f"{group}: {name}", says=says, source=source, left=ours, right=theirs, **more)
