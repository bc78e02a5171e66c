from pathlib import Path

import pytest

from stabmon.evaluation.repairs import first_fix, live
from stabmon.fixes import clip_fix
from stabmon.records import FixKind, Severity
from tests.evaluation.made import finding, outcome


def test_the_first_fix_is_that_of_the_first_alarm_that_has_one() -> None:
    quiet = finding("RES003", 0, Severity.INFO, FixKind.PRE_NORM)
    mute, alarm = finding("LOS001", 5, Severity.WARNING), finding("ATT003", 9, Severity.WARNING, FixKind.QK_NORM)
    found = first_fix([quiet, mute, alarm], {})
    assert found is not None
    assert (found[0].code, found[1].kind) == ("ATT003", FixKind.QK_NORM)


def test_without_an_alarm_that_names_a_fix_it_is_that_of_the_first_information() -> None:
    later, first = (
        finding("ATT007", 7, Severity.INFO, FixKind.BIAS),
        finding("RES003", 0, Severity.INFO, FixKind.PRE_NORM),
    )
    found = first_fix([later, first, finding("LOS001", 3, Severity.WARNING)], {})
    assert found is not None
    assert found[1].kind is FixKind.PRE_NORM
    assert first_fix([finding("LOS001", 3, Severity.WARNING)], {}) is None


@pytest.mark.parametrize(("clip", "can_be"), [(1.0, False), (None, True)])
def test_a_fix_that_the_training_refuses_is_not_carried_out_live(clip: float | None, can_be: bool) -> None:
    found = finding("GRD003", 3, Severity.INFO, FixKind.CLIP).model_copy(update={"fixes": (clip_fix(3.6, "why"),)})
    repair = live(outcome("run", [1.0] * 10, training__clip=clip), [found], Path("mended"), {})
    assert (repair is not None) == can_be
