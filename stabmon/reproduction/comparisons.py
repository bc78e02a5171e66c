"""The comparisons of the paper and of foreign models: which arms each trains, and what is claimed about them."""

import math
from typing import Any

from stabmon.fixes.row_mass import alibi_bias
from stabmon.reproduction.arm_group import ArmGroup, claim

PAPER, REMEMBERED, ISSUE = "arXiv 2409.04431", "arXiv 2409.04431, as remembered", "measured on foreign models"
LONGER = 4
"""Length of the evaluation on longer input over that of the training."""
SOFTMAX: dict[str, Any] = {"model.attention": "softmax"}
ZERO: dict[str, Any] = {"model.bias": 0.0}
NORMED: dict[str, Any] = {"model.qk_norm": True}
HYBRID: dict[str, Any] = {"model.hybrid_norm": True}


def bias(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    """Return b = -log n and b = 0 with what may stand in for it, against softmax."""
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
            claim(
                name, "b = -log n", f"at n = {length} b = -log n is better than b = 0", PAPER, "length-qk", "zero-qk"
            ),
            claim(name, "learnable b", "a learnable b is better than b = 0", REMEMBERED, "learnable-qk", "zero-qk"),
            claim(name, "QK norm", "QK norm helps b = -log n", PAPER, "length-qk", "length"),
            claim(name, "hybrid norm", f"at n = {length} hybrid norm helps on top", PAPER, "hybrid-qk", "length-qk"),
            claim(
                name,
                "sigmoid = softmax",
                "with b and QK norm sigmoid ends level with softmax",
                PAPER,
                "length-qk",
                "softmax-qk",
                expect="level",
            ),
            claim(
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


def hybrid(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    """Return QK norm with and without hybrid norm, against softmax."""
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
            claim(
                name,
                "hybrid norm",
                f"at n = {length} hybrid norm is not needed",
                PAPER,
                "hybrid-qk",
                "length-qk",
                expect="level",
            ),
            claim(
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


def vision(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    """Return LayerScale and QK norm on images, against softmax."""
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
            claim(
                name, "LayerScale", "without b LayerScale 1e-4 is better than none", REMEMBERED, "zero-scale", "zero"
            ),
            claim(
                name,
                "LayerScale = softmax",
                "with LayerScale and no b sigmoid ends level with softmax",
                PAPER,
                "zero-scale",
                "softmax-scale",
                expect="level",
            ),
            claim(name, "no b needed", "b = -log n and b = 0 end level", REMEMBERED, "length", "zero", expect="level"),
            claim(
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


def positions(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    """Return the biases under each kind of position."""
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
            claim(
                name,
                f"b under {position}",
                f"under {position} positions a b at which rows sum to one is better than b = 0",
                PAPER,
                f"{position}-fitted",
                f"{position}-zero",
            )
        )
        claims.append(
            claim(
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


def lengths(name: str, base: dict[str, Any], seeds: int) -> ArmGroup:
    """Return evaluations on input that is longer than the training's."""
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
            claim(
                name,
                "fixed b, longer input",
                f"{beyond} softmax loses less than sigmoid with b = -log n",
                "arXiv 2501.13428",
                "rope-softmax",
                "rope-fixed",
                longer=True,
            ),
            claim(
                name,
                "b for longer input",
                f"{beyond} a model with b for that length is better",
                PAPER,
                "rope-longer-b",
                "rope-fixed",
                longer=True,
            ),
            claim(
                name,
                "ALiBi on longer input",
                f"{beyond} sigmoid under ALiBi is better than under RoPE",
                PAPER,
                "alibi-fitted",
                "rope-fixed",
                longer=True,
            ),
            claim(
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


def rates(name: str, base: dict[str, Any], rates: tuple[float, ...], seeds: int) -> ArmGroup:
    """Return sigmoid and softmax at each learning rate of ``rates``."""
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
            claim(
                name,
                "QK norm, sigmoid",
                "QK norm makes sigmoid less sensitive to the learning rate",
                "arXiv 2309.14322",
                sides["length-qk"],
                sides["length"],
                sensitivity=True,
            ),
            claim(
                name,
                "QK norm, softmax",
                "QK norm makes softmax less sensitive to the learning rate",
                "arXiv 2309.14322",
                sides["softmax-qk"],
                sides["softmax"],
                sensitivity=True,
            ),
            claim(
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
