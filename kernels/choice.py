"""The choice of the backend that answers a call."""

import logging
from functools import cache
from typing import Literal

import torch

from . import sigmoid_forms
from .hopper import requirements as hopper
from .hopper.sigmoid import forward_form as hopper_form
from .problem import Backend, Chosen, Problem, Traits
from .triton import requirements as triton
from .triton import splitting
from .triton.launch import sigmoid_form as triton_form

Fused = Literal["triton", "split_keys", "hopper"]

log = logging.getLogger(__name__)


def check(backend: Backend, traits: Traits) -> None:
    """Refuse a call that the backend it names cannot take.

    Raises:
        RuntimeError: the machine cannot run the backend.
        ValueError: the backend does not take such arguments.
    """
    if backend not in ("triton", "split_keys", "hopper"):
        return
    reason = hopper.refusal(traits) if backend == "hopper" else triton.refusal(traits, backend)
    if reason is not None:
        kind = RuntimeError if reason.of_machine else ValueError
        raise kind(f"{reason.text}; pass backend='eager' or 'auto'")


def choose(backend: Backend, traits: Traits) -> Chosen:
    """Return the backend of a call: on a CUDA device "auto", if a fused backend takes it, and eager elsewhere."""
    if backend != "auto":
        return backend
    if traits.device.type != "cuda":
        return "eager"
    if hopper.preferred(traits):
        return "auto"
    only_split = bool(triton.CACHE & traits.used)
    reason = triton.refusal(traits, "split_keys" if only_split else "triton")
    if reason is None:
        return "split_keys" if only_split else "auto"
    if not torch.compiler.is_compiling():
        _warn_of_eager(reason.text)
    return "eager"


def forward(problem: Problem) -> Fused:
    """Return the backend whose forward is the fastest for ``problem`` on its CUDA device, by the cost model."""
    other = gradients(problem)
    if splitting.is_chosen(problem, splitting.HOPPER if other == "hopper" else splitting.TRITON):
        return "split_keys"
    return other


def gradients(problem: Problem) -> Fused:
    """Return the backend whose backward is the fastest for ``problem`` on its CUDA device."""
    return "hopper" if hopper.preferred(problem.traits) else "triton"


@cache
def _warn_of_eager(reason: str) -> None:
    """Log once for each reason that a CUDA call is computed by the backend that holds all weights in memory."""
    log.warning("backend='auto' uses 'eager', which holds N_q x N_k weights a head and is slow: %s", reason)


def form_of(problem: Problem, backend: Chosen) -> str:
    """Return the name of the form in which ``backend``'s forward computes sigmoid: "tanh", "accurate" or "by head"."""
    if backend == "eager":
        return sigmoid_forms.name(sigmoid_forms.PLAIN)
    return sigmoid_forms.name(hopper_form(problem) if backend == "hopper" else triton_form(problem, "forward"))
