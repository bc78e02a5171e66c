"""FLOP formulas of the fused operators for ``torch.utils.flop_counter``, as torch has them for softmax attention.

Every pair of query and key of a sequence counts, whatever mask, window or padding hides it: 4·D operations forward and
10·D backward, which computes the logits again. So the count does not depend on the backend, and compares with softmax.
Importing torch's counter imports triton, so the formulas are registered by an import hook when something else imports
it. A check at the operator's first call would be too late: ``FlopCounterMode`` copies torch's registry when it is made.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .problem import FIELDS, Problem

COUNTER = "torch.utils.flop_counter"


def _pairs(problem: Problem) -> int:
    """Return the pairs of query and key of one head, over all sequences."""
    starts = problem.query_starts, problem.key_starts
    if starts[0] is None or starts[1] is None:
        return problem.batch * problem.n_q * problem.n_k
    if not all(_has_values(of) for of in starts if of is not None):
        return problem.batch * problem.max_q * problem.max_k
    return int((starts[0].diff() * starts[1].diff()).sum())


def _has_values(starts: Tensor) -> bool:
    return not torch._subclasses.fake_tensor.is_fake(starts) and starts.device.type != "meta"


def _forward(*arguments: Any, out_val: Any = None, **_: Any) -> int:
    problem = Problem(*arguments[:FIELDS])
    return 4 * problem.query.size(3) * problem.query.size(1) * _pairs(problem)


def _backward(_: Tensor, *arguments: Any, out_val: Any = None, **__: Any) -> int:
    problem = Problem(*arguments[:FIELDS])
    return 10 * problem.query.size(3) * problem.query.size(1) * _pairs(problem)


def _register(counter: ModuleType) -> None:
    counter.register_flop_formula(torch.ops.stabmon.sigmoid_attention, get_raw=True)(_forward)
    counter.register_flop_formula(torch.ops.stabmon.sigmoid_attention_backward, get_raw=True)(_backward)


class _WhenImported(MetaPathFinder):
    """Registers the formulas as soon as torch's counter has been imported, and is gone."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Let the others find the counter, and follow its loader."""
        if name != COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            _register(module)

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def offer() -> None:
    """Register the formulas now, or when torch's counter is imported."""
    if COUNTER in sys.modules:
        _register(sys.modules[COUNTER])
    else:
        sys.meta_path.insert(0, _WhenImported())
