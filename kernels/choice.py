"""The choice of the backend that answers a call."""

import logging
from functools import cache

import torch

from . import sigmoid_forms
from .hopper import requirements as hopper
from .hopper.sigmoid import forward_form as hopper_form
from .problem import Backend, Chosen, Problem, Traits
from .triton import requirements as triton
from .triton.launch import sigmoid_form as triton_form

log = logging.getLogger(__name__)


def check(backend: Backend, traits: Traits) -> None:
    """Refuse a call that the backend it names cannot take.

    Raises:
        RuntimeError: the machine cannot run the backend.
        ValueError: the backend does not take such arguments.
    """
    if backend not in ("triton", "hopper"):
        return
    reason = triton.refusal(traits) if backend == "triton" else hopper.refusal(traits)
    if reason is not None:
        kind = RuntimeError if reason.of_machine else ValueError
        raise kind(f"{reason.text}; pass backend='eager' or 'auto'")


def choose(backend: Backend, traits: Traits) -> Chosen:
    """Return the backend for ``auto``: the fastest that takes the call on a CUDA device, eager everywhere else."""
    if backend != "auto":
        return backend
    if traits.device.type != "cuda":
        return "eager"
    if hopper.preferred(traits):
        return "hopper"
    reason = triton.refusal(traits)
    if reason is None:
        return "triton"
    if not torch.compiler.is_compiling():
        _warn_of_eager(reason.text)
    return "eager"


@cache
def _warn_of_eager(reason: str) -> None:
    """Log once for each reason that a CUDA call is computed by the backend that holds all weights in memory."""
    log.warning("backend='auto' uses 'eager', which holds N_q x N_k weights a head and is slow: %s", reason)


def form_of(problem: Problem, backend: Chosen) -> str:
    """Return the name of the form in which ``backend``'s forward computes sigmoid: "tanh", "accurate" or "by head"."""
    if backend == "eager":
        return sigmoid_forms.name(sigmoid_forms.PLAIN)
    return sigmoid_forms.name(hopper_form(problem) if backend == "hopper" else triton_form(problem, "forward"))
