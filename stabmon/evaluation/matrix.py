"""The evaluation's runs, read from YAML: base configurations, what is changed in each, and the seeds.

A configuration is a base with one variant; its seeds are replicates. ``kind`` says what a variant was meant to show and
is used to sort the tables, never to label a run.
"""

from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from stabmon import config as configuration
from stabmon import yaml_file
from stabmon.config import RunConfig, Section
from stabmon.config_messages import explain
from stabmon.errors import ConfigError
from stabmon.records import Record

Half = Literal["tuning", "held-out"]


class Base(Section):
    """A healthy configuration that the variants change."""

    config: dict[str, Any]
    """A run's configuration without its name."""
    cpu: bool = False
    """True if its runs belong to the subset that two CPU cores finish."""


class Variant(Section):
    """One change, made to some of the bases."""

    name: str
    kind: str
    """The failure that it is meant to show, or "healthy"."""
    bases: list[str]
    """Names of bases, or of workloads, which stand for all their bases."""
    change: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the configuration and their values."""


class Matrix(Section):
    """All of an evaluation's configurations."""

    seeds: list[int]
    """Replicates of each configuration."""
    bases: dict[str, Base]
    variants: list[Variant]


class MatrixRun(Record):
    """One run of the matrix."""

    base: str
    variant: str
    kind: str
    cpu: bool
    config: RunConfig

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return self.config.name

    @property
    def configuration(self) -> str:
        """Name of its configuration, which its replicates share."""
        return f"{self.base}.{self.variant}"


def load(path: Path) -> Matrix:
    """Read a matrix.

    Raises:
        ConfigError: no such file, no YAML, or an unknown or wrong key, which is named.
    """
    values = yaml_file.read(path, "the matrix")
    try:
        return Matrix.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, Matrix, str(path))) from error


def runs_of(matrix: Matrix, *, cpu_only: bool = False) -> tuple[MatrixRun, ...]:
    """Return the runs of ``matrix`` in its order; of the CPU's subset only the first seed.

    Raises:
        ConfigError: a variant names a base that does not exist, or makes a configuration that is not valid.
    """
    runs = []
    for variant in matrix.variants:
        for base in _bases(matrix, variant):
            if cpu_only and not matrix.bases[base].cpu:
                continue
            for seed in matrix.seeds[:1] if cpu_only else matrix.seeds:
                runs.append(_run(matrix, base, variant, seed))
    return tuple(runs)


def halves(configurations: dict[str, str]) -> dict[str, Half]:
    """Split configurations (name to kind) into two halves: within each kind every second one, in the order of a hash.

    The names alone decide, so a configuration stays in its half when others come or go in other kinds.
    """
    by_kind: dict[str, list[str]] = defaultdict(list)
    for name, kind in configurations.items():
        by_kind[kind].append(name)
    found: dict[str, Half] = {}
    for kind, names in by_kind.items():
        for index, name in enumerate(sorted(names, key=_hash)):
            found[name] = "tuning" if (index + _hash(kind)) % 2 == 0 else "held-out"
    return found


def _hash(text: str) -> int:
    """Return a number that the text alone decides, in every process."""
    return int.from_bytes(sha256(text.encode()).digest()[:8])


def _bases(matrix: Matrix, variant: Variant) -> list[str]:
    found = []
    for wanted in variant.bases:
        named = [name for name, base in matrix.bases.items() if wanted in (name, base.config.get("workload"))]
        if not named:
            raise ConfigError(
                f"variant {variant.name}: no base or workload {wanted!r}; known: {', '.join(matrix.bases)}"
            )
        found += named
    return list(dict.fromkeys(found))


def _run(matrix: Matrix, base: str, variant: Variant, seed: int) -> MatrixRun:
    name = f"{base}.{variant.name}.{seed}"
    try:
        start = RunConfig.model_validate(matrix.bases[base].config | {"name": name})
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig, f"base {base}")) from error
    return MatrixRun(
        base=base,
        variant=variant.name,
        kind=variant.kind,
        cpu=matrix.bases[base].cpu,
        config=configuration.override(start, variant.change | {"training.seed": seed}),
    )
