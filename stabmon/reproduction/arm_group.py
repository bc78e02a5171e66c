"""A group of arms that share a model's size, data and length of training: its runs, and the claims about it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from stabmon.config import RunConfig
from stabmon.reproduction.claims import Claim


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


def claim(
    group: str,
    name: str,
    says: str,
    source: str,
    left: str | tuple[str, ...],
    right: str | tuple[str, ...],
    **more: Any,
) -> Claim:
    """Return a claim about arms of ``group``, one a side or several; ``more``: fields of ``Claim``."""
    sides = ((side,) if isinstance(side, str) else side for side in (left, right))
    ours, theirs = (tuple(f"{group}.{arm}" for arm in side) for side in sides)
    return Claim(name=f"{group}: {name}", says=says, source=source, left=ours, right=theirs, **more)
