"""A training of a foreign family: what varies between its arms, and what a fix changes in it. No torch."""

import math
from typing import Literal

from stabmon.fixes.record import Fix
from stabmon.records import Record

Bias = float | Literal["learnable"]
Split = Literal["tuning", "held-out"]
FAMILIES: dict[str, Split] = {
    "gpt": "tuning",
    "llama": "tuning",
    "vit": "tuning",
    "neox": "held-out",
    "bert": "held-out",
}
"""GPT-2's initialisation and learned positions; RoPE, RMSNorm and grouped keys; 196 patches. Never tuned on: blocks
whose branches are parallel, with rotation of half a head; and masked text, both ways, post-norm."""
PATCHES = 196


class Setup(Record):
    """One training."""

    family: str
    arm: str
    seed: int
    width: int
    layers: int
    heads: int
    context: int
    batch: int
    steps: int
    rate: float
    warmup: int
    clip: float | None = 1.0
    attention: Literal["sigmoid", "softmax"] = "sigmoid"
    bias: Bias
    qk_norm: bool = False
    hybrid_norm: bool = False
    layer_scale: float | None = None
    pre_norm: bool = True

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return f"{self.family}.{self.arm}.{self.seed}"

    @property
    def split(self) -> Split:
        """The split of its family."""
        return FAMILIES[self.family]

    @property
    def twin(self) -> str:
        """Name of the run with softmax in its place: the same but for the bias, which softmax does not see."""
        changed = {"attention": "softmax", "bias": 0.0}
        kinds = [name for name, has in (("qk", self.qk_norm), ("hybrid", self.hybrid_norm)) if has]
        hot = ["hot"] if self.arm.startswith("hot") else []
        arm = "-".join(["softmax", *kinds, *hot])
        return self.model_copy(update=changed | {"arm": arm}).name


class Size(Record):
    """Size and duration of every training of a grid."""

    width: int
    layers: int
    heads: int
    context: int
    batch: int
    steps: int
    seeds: int


SIZES = {
    "cpu": Size(width=64, layers=2, heads=2, context=256, batch=4, steps=200, seeds=1),
    "gpu": Size(width=256, layers=4, heads=4, context=1024, batch=16, steps=600, seeds=3),
}
RATE = 2e-3
HOT = 10.0
"""Factor on the learning rate of the arms that are to outgrow their start."""


def setups(size: Size) -> list[Setup]:
    """Return every training: arms of sigmoid and their softmax twins, the first seed of all first."""
    return [
        one for seed in range(size.seeds) for family in FAMILIES for one in _arms(_plain(family, size, seed)).values()
    ]


def _plain(family: str, size: Size, seed: int) -> Setup:
    length = PATCHES if family == "vit" else size.context
    sides = {name: getattr(size, name) for name in ("width", "layers", "heads", "batch", "steps")}
    bias = round(-math.log(length), 2)
    return Setup(
        family=family,
        arm="length",
        seed=seed,
        context=length,
        rate=RATE,
        warmup=size.steps // 10,
        bias=bias,
        pre_norm=family != "bert",
        **sides,
    )


def _arms(plain: Setup) -> dict[str, Setup]:
    assert isinstance(plain.bias, float)
    changes: dict[str, dict[str, object]] = {
        "zero": {"bias": 0.0},
        "length": {},
        "starved": {"bias": plain.bias - 5},
        "qk": {"qk_norm": True},
        "hybrid": {"hybrid_norm": True},
        "learnable-qk": {"qk_norm": True, "bias": "learnable"},
        "hot": {"rate": HOT * plain.rate},
        "softmax": {"attention": "softmax"},
        "softmax-qk": {"attention": "softmax", "qk_norm": True},
        "softmax-hybrid": {"attention": "softmax", "hybrid_norm": True},
        "softmax-hot": {"attention": "softmax", "rate": HOT * plain.rate},
    }
    return {arm: plain.model_copy(update={"arm": arm, **change}) for arm, change in changes.items()}


def with_fix(setup: Setup, fix: Fix) -> Setup | None:
    """Return ``setup`` as its user would change it for ``fix``; None where a part cannot be written in these models."""
    changed = setup
    for part in fix.parts:
        update = _update(changed, part)
        if update is None:
            return None
        changed = changed.model_copy(update=update)
    return None if changed == setup else changed.model_copy(update={"arm": f"{setup.arm}+{fix.kind}"})


def _update(setup: Setup, part: Fix) -> dict[str, object] | None:
    match part.kind:
        case "bias":
            return {"bias": part.needed}
        case "learnable_bias":
            return {"bias": "learnable"}
        case "qk_norm" | "hybrid_norm" | "pre_norm":
            return {part.kind: True}
        case "layer_scale":
            return {"layer_scale": part.needed}
        case "learning_rate":
            return {"rate": setup.rate * part.needed}
        case "warmup":
            return {"warmup": int(part.needed)}
        case "clip":
            return {"clip": part.needed}
        case _:
            return None
