"""Training settings from the configuration that is stored with a run, each None where it is not stated."""

from typing import Any

from stabmon.rules.view import Run


def clip(run: Run) -> float | None:
    """Return the norm at which gradients are clipped."""
    return _number(_training(run).get("clip"))


def evaluate_length(run: Run) -> float | None:
    """Return the length in keys of an evaluation that is to follow the training."""
    return _number(_training(run).get("evaluate_length"))


def longest_length(run: Run) -> float | None:
    """Return the length in keys of the longest sequence that the training is to see."""
    return _number(run.info.config.get("longest_length", _training(run).get("longest_length")))


def is_fp16(run: Run) -> bool:
    """Return whether the run computes in fp16."""
    return _training(run).get("precision") in ("fp16", "float16")


def learning_rate(run: Run) -> float | None:
    """Return the peak of the learning rate."""
    return _number(_training(run).get("learning_rate"))


def steps(run: Run) -> float | None:
    """Return for how many steps the run is planned."""
    return _number(_training(run).get("steps"))


def reach(run: Run) -> float | None:
    """Return the largest distance that Adam can move a weight in the whole run: the learning rate times the steps."""
    rate, planned = learning_rate(run), steps(run)
    return None if rate is None or planned is None else rate * planned


def workload(run: Run) -> str | None:
    """Return what is trained: "language", "vision" or "speech"."""
    found = run.info.config.get("workload")
    return found if isinstance(found, str) else None


def _training(run: Run) -> dict[str, Any]:
    """Return the section "training", or the whole configuration where it has none."""
    config = run.info.config
    section = config.get("training", config)
    return section if isinstance(section, dict) else config


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
