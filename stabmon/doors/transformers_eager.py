"""The door of Transformers' ``attn_implementation="eager"``: a function of that name in each of its model files."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from stabmon.doors.form import scale_of, shown
from stabmon.kernels import observe
from stabmon.kernels.problem import Problem

NAME = "transformers' eager attention"


def functions() -> Iterable[Callable[..., Any]]:
    """Return the functions that are wrapped: one of each model that is loaded."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("transformers.models.")]
    found = (vars(module).get("eager_attention_forward") for module in modules)
    return list({id(function): function for function in found if callable(function)}.values())


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its calls shown to the observer."""
    return shown(function, _call)


def _call(
    output: Tensor,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    **_: Any,
) -> observe.Call:
    """Return the call of Transformers' signature; ``output`` is [B, N, H, D]."""
    mask = None if attention_mask is None else attention_mask[..., : key.size(-2)]
    scale = scale_of(query, None if scaling is None else float(scaling))
    problem = Problem(query, key, value, scale=scale, attn_mask=mask)
    return observe.Call(problem, output.transpose(1, 2), kind="softmax", door=NAME, returned=output)
