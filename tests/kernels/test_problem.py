"""A field of a call that is not at its default is named, so that no backend leaves an option out in silence."""

import torch

from stabmon.kernels.problem import Problem

TENSOR = torch.zeros(1, 2, 4, 8)


def test_a_backend_learns_every_option_but_the_scale_and_a_bias_that_is_a_number():
    plain = Problem(TENSOR, TENSOR, TENSOR)
    assert not plain.used
    silent = {name for name in Problem._field_defaults if name not in plain._replace(**{name: torch.ones(2)}).used}
    assert silent == {"scale", "bias_value"}


def test_slopes_of_each_sequence_are_named_apart():
    slopes = torch.ones(1, 2)
    assert Problem(TENSOR, TENSOR, TENSOR, alibi_slopes=slopes[0]).used == {"alibi_slopes"}
    assert len(Problem(TENSOR, TENSOR, TENSOR, alibi_slopes=slopes).used) == 2
