"""Limits of the rules in a run: one value each, exceptions for some layers, and rules that are ignored.

``Limits.from_mapping``, ``read`` (a YAML file) and ``set_`` (``att.row_mass_max=6``) read what a user wrote; the
limits themselves, each with its meaning, unit and source, are declared in ``stabmon.rules.families``.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from stabmon import yaml_file
from stabmon.errors import ConfigError
from stabmon.records import Record
from stabmon.rules.families import (
    AttentionLimits,
    BehaviourLimits,
    ConfigurationLimits,
    GradientLimits,
    LossLimits,
    NumericLimits,
    ResidualLimits,
    UpdateLimits,
)

_EXAMPLE = "write att.row_mass_max: 6, or for some layers layers.0/att.row_mass_max: 6"


class LimitDocument(Record):
    """One limit as the command line, the page and the documentation print it."""

    name: str
    """Family and field: ``att.row_mass_max``, the name that ``Limits.from_mapping`` reads."""
    default: float
    unit: str
    source: str
    text: str


class Limits(Record):
    """All limits, by family, with the exceptions."""

    att: AttentionLimits = AttentionLimits()
    """Attention."""
    res: ResidualLimits = ResidualLimits()
    """Residual stream."""
    upd: UpdateLimits = UpdateLimits()
    """Updates of the weights."""
    grd: GradientLimits = GradientLimits()
    """Gradients."""
    num: NumericLimits = NumericLimits()
    """Numbers."""
    los: LossLimits = LossLimits()
    """Loss."""
    cfg: ConfigurationLimits = ConfigurationLimits()
    """Configuration."""
    beh: BehaviourLimits = BehaviourLimits()
    """Behaviour beside softmax."""
    layers: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Limits of some layers: shell pattern of layer names -> name -> value; of patterns that fit, the last wins."""
    ignore: tuple[str, ...] = ()
    """Codes or names of rules that are not run."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Limits":
        """Read ``{"att": {"row_mass_max": 6}}``; what is not named keeps its default.

        A name may be dotted (``att.row_mass_max``), and begin with the pattern of the layers that it is for
        (``layers.0/att.row_mass_max``); ``layers`` holds such patterns too, and ``ignore`` codes of rules.

        Raises:
            ConfigError: a name that does not exist (the nearest one is named) or a value that is no positive number.
        """
        return cls().changed(mapping)

    def changed(self, mapping: Mapping[str, Any]) -> "Limits":
        """Return these limits with those of ``mapping``, as ``from_mapping`` reads it, in their place.

        Raises:
            ConfigError: as ``from_mapping``.
        """
        values = self.model_dump()
        for pattern, name, value in _settings(mapping):
            if name == "ignore":
                values["ignore"] = tuple(dict.fromkeys((*values["ignore"], *_codes(value))))
            elif pattern is None:
                family, _, field = _known(name).partition(".")
                values[family][field] = value
            else:
                values["layers"].setdefault(pattern, {})[_known(name)] = _checked(name, value)
        try:
            return Limits.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise _wrong(".".join(str(part) for part in first["loc"]), first["input"]) from None

    def of_layer(self, layer: str) -> "Limits":
        """Return the limits of one layer, without exceptions."""
        own = {
            name: value
            for pattern, own in self.layers.items()
            if fnmatchcase(layer, pattern)
            for name, value in own.items()
        }
        plain = self.model_copy(update={"layers": {}})
        return plain.changed(own) if own else plain

    @property
    def differences(self) -> dict[str, Any]:
        """The limits that differ from the defaults, as ``from_mapping`` reads them."""
        default = Limits()
        found: dict[str, Any] = {}
        for name in _documents():
            family, _, field = name.partition(".")
            value = getattr(getattr(self, family), field)
            if value != getattr(getattr(default, family), field):
                found[name] = value
        found |= {f"{pattern}/{name}": value for pattern, own in self.layers.items() for name, value in own.items()}
        return found | ({"ignore": list(self.ignore)} if self.ignore else {})

    def band(self, metric: str) -> tuple[float | None, float | None]:
        """Return the limits ``METRIC_min`` and ``METRIC_max`` of a metric; None where there is no such limit."""
        found = {field: getattr(getattr(self, family), field) for family, field in _fields()}
        return found.get(f"{metric}_min"), found.get(f"{metric}_max", found.get(metric))


def _fields() -> tuple[tuple[str, str], ...]:
    return tuple((family, field) for family, _, field in (name.partition(".") for name in _documents()))


def resolve(given: "Limits | Mapping[str, Any] | str | Path | None") -> Limits:
    """Return limits given as such, as names and numbers, as a YAML file of them, or left out for the defaults.

    Raises:
        ConfigError: it is none of these, or as ``Limits.from_mapping`` and ``read``.
    """
    if given is None or isinstance(given, Limits):
        return given or Limits()
    if isinstance(given, Mapping):
        return Limits.from_mapping(given)
    if isinstance(given, str | Path):
        return read(given)
    raise ConfigError(f"limits must be Limits, names and numbers, or a YAML file, got {type(given).__name__}")


def read(path: str | Path) -> Limits:
    """Read limits from a YAML file.

    Raises:
        ConfigError: the file cannot be read, or holds something else than limits.
    """
    values = yaml_file.read(path, "the limits")
    if values is None:
        return Limits()
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must hold names and numbers, got {type(values).__name__}; {_EXAMPLE}")
    try:
        return Limits.from_mapping(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def set_(limits: Limits, *assignments: str) -> Limits:
    """Return ``limits`` changed by assignments such as ``att.row_mass_max=6`` and ``layers.0*/res.branch_ratio_max=9``.

    Raises:
        ConfigError: an assignment without "=", a name that does not exist, a value that is no positive number.
    """
    for assignment in assignments:
        name, sign, value = assignment.rpartition("=")
        if not sign or not name.strip():
            raise ConfigError(f"a limit is set as NAME=NUMBER, such as att.row_mass_max=6, got {assignment!r}")
        limits = limits.changed({name.strip(): value.strip()})
    return limits


def documents() -> tuple[LimitDocument, ...]:
    """Return every limit with its default, unit, source and meaning."""
    return tuple(_documents().values())


def families() -> dict[str, Any]:
    """Return the model of each family's limits by the family's name."""
    return {name: field.default for name, field in Limits.model_fields.items() if isinstance(field.default, Record)}


@cache
def _documents() -> dict[str, LimitDocument]:
    found = {}
    for family, default in families().items():
        for field, inner in type(default).model_fields.items():
            extra = inner.json_schema_extra
            assert isinstance(extra, dict)
            name = f"{family}.{field}"
            found[name] = LimitDocument(
                name=name,
                default=inner.default,
                unit=str(extra["unit"]),
                source=str(extra["source"]),
                text=inner.description or "",
            )
    return found


def _settings(mapping: Mapping[str, Any], pattern: str | None = None) -> Iterable[tuple[str | None, str, Any]]:
    """Yield (pattern of layers or None, dotted name, value) for everything that ``mapping`` sets."""
    for key, value in mapping.items():
        before, slash, name = str(key).rpartition("/")
        where = before if slash else pattern
        if isinstance(value, Mapping):
            if name == "layers" and where is None:
                for layers, own in value.items():
                    if not isinstance(own, Mapping):
                        raise ConfigError(f"layers: {layers!r} must hold names and numbers, got {own!r}; {_EXAMPLE}")
                    yield from _settings(own, str(layers))
            else:
                yield from ((where, f"{name}.{field}", inner) for field, inner in value.items())
        else:
            yield where, name, value


def _known(name: str) -> str:
    if name in _documents():
        return name
    near = get_close_matches(name, _documents(), n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(_documents())}"
    raise ConfigError(f"unknown limit {name!r}{hint}")


def _checked(name: str, value: Any) -> float:
    """Return the value of a limit of some layers, checked against the family's own model."""
    family, _, field = name.partition(".")
    try:
        return float(getattr(type(families()[family]).model_validate({field: value}), field))
    except ValidationError:
        raise _wrong(name, value) from None


def _wrong(name: str, value: Any) -> ConfigError:
    family, _, field = name.partition(".")
    fields = type(families()[family]).model_fields if family in families() else {}
    whole = "whole " if field in fields and fields[field].annotation is int else ""
    return ConfigError(f"{name} must be a positive {whole}number, got {value!r:.200}")


def _codes(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, list | tuple) and all(isinstance(code, str) for code in value):
        return tuple(value)
    raise ConfigError(f"ignore must hold codes of rules, such as [GRD001], got {value!r}")
