"""Outcomes and verdicts made by hand, whose figures are known."""

from stabmon.evaluation.baselines import BASELINES
from stabmon.evaluation.labels import Label
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.verdict import Alarm, BaselineAlarms, Verdict
from stabmon.findings import Finding
from stabmon.fixes.change import Safety
from stabmon.fixes.record import Fix
from stabmon.records import Evidence, Severity


def outcome(name: str, losses: list[float], **options: object) -> Outcome:
    """Return an outcome of a small run; ``options`` are dotted settings, or fields of the record."""
    fields = {key: options.pop(key) for key in ("validation_loss",) if key in options}
    config: dict[str, dict[str, object]] = {
        "model": {"layers": 1, "width": 8, "heads": 2, "context": 16, "bias": "length"},
        "training": {"steps": len(losses), "batch": 2, "learning_rate": 1e-3, "seed": 0},
    }
    for key, value in options.items():
        section, _, last = key.partition("__")
        config[section][last] = value
    record = {"name": name, "config": {"name": name, **config}, "losses": losses, "seconds": 1.0, "device": "cpu"}
    return Outcome.model_validate({"validation_loss": None, **record, **fields})


def verdict(
    name: str,
    *,
    failed: bool,
    first: int | None = None,
    codes: tuple[str, ...] = ("ATT001",),
    shown: int = 100,
    peak: float = 0.0,
    fix: str | None = "bias",
    **fields: object,
) -> Verdict:
    """Return a verdict; ``name`` is the configuration's, and ``first`` the step of its alarms."""
    alarms = () if first is None else codes
    made = {
        "name": f"{name}.0",
        "configuration": name,
        "workload": "language",
        "kind": "b = 0" if failed else "healthy",
        "half": "held-out",
        "label": Label(why="worse" if failed else "healthy", loss=1.0, reference=None),
        "shown": shown,
        "alarms": tuple(
            Alarm(code=code, severity=Severity.ERROR, opened=first or 0, at_start=first == 0, fix=fix)
            for code in alarms
        ),
        "baselines": {each.name: BaselineAlarms(peak=peak, first=None, events=0) for each in BASELINES},
    }
    return Verdict.model_validate(made | fields)


def finding(code: str, opened: int, severity: Severity, *fixes: str) -> Finding:
    """Return a finding with fixes of the given kinds."""
    return Finding(
        code=code,
        name="n",
        severity=severity,
        evidence=Evidence.MEASURED,
        layer=None,
        head=None,
        metric="loss",
        value=1.0,
        limit=1.0,
        message="m",
        cause="c",
        opened=opened,
        peak=opened,
        last=opened,
        fixes=tuple(Fix(kind=kind, module="m", safety=Safety.ANY_TIME, why="w", code="c") for kind in fixes),
    )
