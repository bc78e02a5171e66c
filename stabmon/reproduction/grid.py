"""The grids: the sizes at which each subset trains the comparisons."""

from typing import Any, Literal

from stabmon.reproduction import comparisons
from stabmon.reproduction.arm_group import ArmGroup

Subset = Literal["quick", "cpu", "gpu"]
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def groups_of(subset: Subset) -> tuple[ArmGroup, ...]:
    """Return the groups of a subset, the slowest first."""
    if subset == "quick":
        return (
            comparisons.bias("bias", language(2, 48, 2, 512, steps=60, batch=2, rate=3e-3, precision="fp32"), seeds=2),
            comparisons.rates(
                "rates", language(2, 48, 2, 64, steps=60, batch=8, precision="fp32"), (1e-3, 1e-1), seeds=2
            ),
        )
    if subset == "cpu":
        return (
            comparisons.bias(
                "bias", language(2, 64, 2, 1024, steps=150, batch=2, rate=2e-3, precision="fp32"), seeds=3
            ),
            comparisons.rates(
                "rates", language(2, 64, 2, 128, steps=120, batch=8, precision="fp32"), (1e-3, 1e-2, 1e-1), seeds=3
            ),
            comparisons.vision("vision", images(4, 48, 2, steps=120, batch=16, precision="fp32"), seeds=3),
        )
    return (
        comparisons.bias("bias-4096", language(4, 256, 2, 4096, steps=600, batch=4), seeds=3),
        comparisons.hybrid("hybrid-2048", language(4, 256, 2, 2048, steps=600, batch=8), seeds=3),
        comparisons.vision("vision", images(12, 96, 3, steps=300, batch=32), seeds=3),
        comparisons.positions("positions-1024", language(4, 256, 4, 1024, steps=300, batch=8), seeds=3),
        comparisons.lengths("lengths-256", language(4, 256, 4, 256, steps=300, batch=32), seeds=3),
        comparisons.rates("rates-512", language(4, 256, 4, 512, steps=200, batch=16), RATES, seeds=2),
    )


def language(
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
    """Return the configuration of a language model, without its name, for a training in this form."""
    model = {"layers": layers, "width": width, "heads": heads, "context": context, "position": "rope"}
    training = {"steps": steps, "batch": batch, "learning_rate": rate, "warmup": steps // 10, "clip": 1.0}
    return {
        "workload": "language",
        "model": {**model, "bias": "length"},
        "training": {**training, "precision": precision},
        "monitor": {"dense": 60, "every": 10},
    }


def images(layers: int, width: int, heads: int, *, steps: int, batch: int, precision: str = "bf16") -> dict[str, Any]:
    """Return that of a vision transformer, whose context is always 144 patches."""
    base = language(layers, width, heads, 144, steps=steps, batch=batch, precision=precision)
    return {**base, "workload": "vision", "model": {**base["model"], "position": "learned"}}
