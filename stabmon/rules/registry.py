"""The rules and their registration.

A rule is a function of a ``Run`` and its family's limits that yields an ``Observation`` for each place where it applies
at this sample. Its docstring holds the sections that the command line, the page and the documentation print.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from stabmon.errors import ConfigError
from stabmon.findings import Reading
from stabmon.fixes.record import Fix
from stabmon.records import Evidence, Record, Severity
from stabmon.rules.limits import LimitDocument, Limits, documents, families
from stabmon.rules.view import Hit, Run

GROUPS = {
    "ATT": "attention",
    "GRD": "gradient",
    "LOS": "loss",
    "NUM": "numeric",
    "RES": "residual",
    "UPD": "update",
    "CFG": "configuration",
    "BEH": "behaviour",
    "USR": "user",
}
SECTIONS = ("What it checks", "Why it matters", "Suggested fix", "When the fix is wrong", "References")


class Explanation(NamedTuple):
    """Text of a finding: one sentence with the numbers, the cause in a line, and the numbers as evidence."""

    message: str
    cause: str
    cells: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """One place that a rule flags at this sample.

    Text and fixes are functions, so that they cost nothing while a finding stays open.
    """

    hit: Hit
    explain: Callable[[], Explanation]
    fixes: Callable[[], tuple[Fix, ...]] = tuple
    opens: bool = True
    """False: it may only keep an open finding from clearing."""
    confirmations: int = 1
    """Consecutive samples that must agree before a finding opens."""
    severity: Severity | None = None
    """None: the rule's own."""
    one_for_the_run: bool = False
    """True: the rule has one finding for the whole run; the layer names the first place."""


Check = Callable[[Run, Any], Iterable[Observation]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its documentation, as its docstring has it."""

    code: str
    name: str
    severity: Severity
    evidence: Evidence
    check: Check
    title: str
    sections: dict[str, str]
    symptom_of: tuple[str, ...]
    """Codes of the rules whose findings, in the same layer or of the run as a whole, explain those of this one."""
    judges_non_finite: bool
    """It may open on a NaN or an infinity; other rules leave those to NUM001."""
    limits: tuple[LimitDocument, ...]
    """The limits that "What it checks" and the other sections name."""


class RuleDocument(Record):
    """A rule as the command line, the page and the README print it; text may hold ``code`` in double backquotes."""

    code: str
    name: str
    group: str
    severity: Severity
    evidence: Evidence
    title: str
    checks: str
    matters: str
    fix: str
    wrong: str
    references: str
    symptom_of: tuple[str, ...]
    limits: tuple[LimitDocument, ...]


_RULES: dict[str, Rule] = {}
_own: ContextVar[dict[str, Rule] | None] = ContextVar("_own", default=None)
"""The registry that ``rule`` adds to while a user's file is read."""


def rule(
    code: str,
    name: str,
    *,
    severity: Severity,
    evidence: Evidence,
    symptom_of: Iterable[str] = (),
    judges_non_finite: bool = False,
) -> Callable[[Check], Check]:
    """Register a rule.

    symptom_of: codes whose findings, in the same layer or of the run as a whole, explain those of this rule.
    judges_non_finite: the rule may open on a NaN or an infinity; other rules leave those to NUM001.

    Raises:
        ValueError: a malformed or taken code or name, or a docstring that lacks a section or names an unknown limit.
    """
    explained = (symptom_of,) if isinstance(symptom_of, str) else tuple(symptom_of)

    def register(check: Check) -> Check:
        own = _own.get()
        _check_names(code, name, _RULES | (own or {}))
        title, sections = _parse(code, inspect.getdoc(check) or "")
        limits = _limits_named(code, " ".join(sections.values()))
        made = Rule(code, name, severity, evidence, check, title, sections, explained, judges_non_finite, limits)
        (_RULES if own is None else own)[code] = made
        return check

    return register


@contextmanager
def collected() -> Iterator[dict[str, Rule]]:
    """Keep the rules that are registered in this block apart from the catalogue."""
    own: dict[str, Rule] = {}
    token = _own.set(own)
    try:
        yield own
    finally:
        _own.reset(token)


@contextmanager
def only(*rules: Rule) -> Iterator[None]:
    """Let ``rules`` be the whole catalogue in this block; rules that are registered in it are gone after it."""
    before = dict(_RULES)
    try:
        _RULES.clear()
        _RULES.update({rule.code: rule for rule in rules})
        yield
    finally:
        _RULES.clear()
        _RULES.update(before)


def catalogue(own: Sequence[Rule] = ()) -> tuple[Rule, ...]:
    """Return every registered rule, and a user's ``own``, in the order of the codes.

    Raises:
        ConfigError: a code or name of ``own`` is taken.
    """
    known = dict(_RULES)
    for rule in own:
        try:
            _check_names(rule.code, rule.name, known)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        known[rule.code] = rule
    return tuple(known[code] for code in sorted(known))


def find(code: str, known: Sequence[Rule] | None = None) -> Rule:
    """Return the rule called ``code``, in any case, or by its kebab name; among ``known``, or the catalogue.

    Raises:
        ConfigError: there is none; the nearest code is named.
    """
    rules = catalogue() if known is None else known
    by_code, by_name = ({getattr(rule, key): rule for rule in rules} for key in ("code", "name"))
    found = by_code.get(code.upper()) or by_name.get(code.lower())
    if found is None:
        near = get_close_matches(code.upper(), by_code, 1, 0.5) or get_close_matches(code.lower(), by_name, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(by_code))}"
        raise ConfigError(f"unknown rule {code!r}; {hint}; `stabmon rules` lists them all")
    return found


def document(code: str, known: Sequence[Rule] | None = None) -> RuleDocument:
    """Return the documentation of the rule called ``code``, among ``known`` or in the catalogue.

    Raises:
        ConfigError: there is no such rule; the nearest code is named.
    """
    rule = find(code, known)
    checks, matters, fix, wrong, references = (rule.sections[section] for section in SECTIONS)
    return RuleDocument(
        code=rule.code,
        name=rule.name,
        group=GROUPS[rule.code[:3]],
        severity=rule.severity,
        evidence=rule.evidence,
        title=rule.title,
        checks=checks,
        matters=matters,
        fix=fix,
        wrong=wrong,
        references=references,
        symptom_of=rule.symptom_of,
        limits=rule.limits,
    )


def markdown_table() -> str:
    """Return the table of stabmon's rules as the README shows it, one rule a line."""
    lines = ["| rule | name | severity | evidence | what it flags |", "|---|---|---|---|---|"]
    for rule in catalogue():
        title = rule.title.removeprefix("Flag ").removesuffix(".").replace("``", "`")
        lines.append(f"| {rule.code} | {rule.name} | {rule.severity} | {rule.evidence} | {title} |")
    return "\n".join(lines) + "\n"


def _check_names(code: str, name: str, known: Mapping[str, Rule]) -> None:
    if not re.fullmatch(r"[A-Z]{3}[0-9]{3}", code) or code[:3] not in GROUPS:
        raise ValueError(f"a rule's code is three letters of {', '.join(GROUPS)} and three digits, got {code!r}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"a rule's name is in kebab case, got {name!r} for {code}")
    if code in known:
        raise ValueError(f"{code} is taken by {known[code].name!r}; give {name!r} the next free number")
    if name in {rule.name for rule in known.values()}:
        raise ValueError(f"the name {name!r} is taken; give {code} its own")


def _parse(code: str, text: str) -> tuple[str, dict[str, str]]:
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\s*", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], (" ".join(part.split()) for part in parts[2::2]), strict=True))
    missing = [section for section in SECTIONS if not sections.get(section)]
    if missing or not parts[0].strip():
        raise ValueError(f"the docstring of {code} lacks {', '.join(missing) or 'its first line'}")
    return " ".join(parts[0].split()), sections


def _limits_named(code: str, text: str) -> tuple[LimitDocument, ...]:
    family = code[:3].lower()
    fields = dict.fromkeys(re.findall(r"``limits\.(\w+)``", text))
    known = {document.name: document for document in documents()}
    unknown = [field for field in fields if f"{family}.{field}" not in known]
    if unknown:
        raise ValueError(f"the docstring of {code} names limits that {family} does not have: {', '.join(unknown)}")
    return tuple(known[f"{family}.{field}"] for field in fields)


def limits_of(rule: Rule, limits: Limits) -> Any:
    """Return the limits of the rule's family; a family without any, such as a user's own, gets all of them."""
    family = rule.code[:3].lower()
    return getattr(limits, family) if family in families() else limits
