"""Making a fix of a kind, with its code, diff and safety, and joining several. No torch."""

from stabmon.fixes import registry
from stabmon.fixes.change import Effect, Safety
from stabmon.fixes.record import Fix
from stabmon.records import Attention


def make(
    kind: str,
    attention: Attention | None,
    why: str,
    *,
    value: float | None = None,
    setting: str | None = None,
    effect: Effect | None = None,
) -> Fix:
    """Return the fix of ``kind`` for ``attention``; None for a change of the training.

    Raises:
        FixError: there is no such kind.
        ValueError: the kind needs an attention, a value or a setting and none was given.
    """
    of = registry.find(kind)
    return Fix(
        kind=kind,
        module=attention.module if attention else "",
        value=value,
        setting=setting,
        safety=of.safety(attention, setting),
        why=why,
        code=of.code(attention, value, setting),
        diff=of.diff(attention, value, setting),
        effect=effect,
    )


def together(first: Fix, *others: Fix) -> Fix:
    """Return ``first`` with ``others`` beside it: one suggestion, applied as a whole."""
    parts = tuple(part for fix in (first, *others) for part in fix.parts)
    return first.model_copy(
        update={
            "made_of": parts,
            "safety": max((part.safety for part in parts), key=list(Safety).index),
            "why": "; ".join(part.why for part in parts),
            "code": "\n".join(part.code for part in parts),
            "diff": "\n".join(part.diff for part in parts if part.diff),
        }
    )
