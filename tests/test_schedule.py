"""Dense at first, then sparse, with offsets that fill the strata evenly."""

import numpy as np
import pytest
from pydantic import ValidationError

from stabmon.schedule import Schedule


def test_every_step_is_sampled_at_first_and_one_in_a_few_later():
    schedule = Schedule(dense=3, every=4)
    assert [step for step in range(14) if schedule.sampled(step)] == [0, 1, 2, 4, 8, 12]


def test_offsets_fill_the_unit_interval_evenly():
    offsets = np.array([Schedule().offset(step) for step in range(64)])
    assert ((offsets >= 0) & (offsets < 1)).all()
    assert (abs(np.histogram(offsets, bins=8, range=(0, 1))[0] - 8) <= 1).all()


@pytest.mark.parametrize("wrong", [{"every": 0}, {"dense": -1}, {"rows": 0}, {"row": 3}])
def test_wrong_values_and_unknown_names_are_refused(wrong):
    with pytest.raises(ValidationError):
        Schedule(**wrong)
