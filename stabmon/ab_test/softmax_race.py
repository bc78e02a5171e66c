"""A race of a sigmoid model against its own softmax twin: same weights, same data, same steps, side by side."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stabmon.ab_test.race_report import RaceReport
from stabmon.ab_test.recipes import RECIPES, positions, put_in
from stabmon.config import RunConfig, override
from stabmon.errors import FixError
from stabmon.generators import same_generators, same_torch_generators
from stabmon.kernels.softmax_twin import softmax_in_place
from stabmon.workloads import training

Progress = Callable[[int, float], None]
Step = Callable[[nn.Module, int], Tensor]


def race(
    model: nn.Module,
    step: Step,
    *,
    optimizer: Optimizer | Callable[[nn.Module], Optimizer] | None = None,
    steps: int = 200,
    seeds: int = 3,
    recipes: bool = False,
    progress: Progress | None = None,
) -> RaceReport:
    """Train copies of ``model`` as it is and with softmax in place of sigmoid, and say how far sigmoid is behind.

    Whatever the model computes by ``sigmoid_attention`` (stabmon.nn, Transformers' "sigmoid", a foreign module) is
    softmax in the twin, with the same scale, mask, window and ALiBi, and without a bias. Both sides of a seed start
    from the same weights and optimizer state and get the same calls with the same random state. The model, the
    optimizer and the random state of torch, numpy and Python are as before afterwards.

    Args:
        model: any module that calls ``sigmoid_attention``, new or trained.
        step: called with the copy and the number of the batch, returns the loss, a scalar with its graph. Seed s gets
            the batches s·steps to (s + 1)·steps - 1. Precision is decided inside it.
        optimizer: one of ``model``, copied with its state, or a function that makes a fresh one; default AdamW at 1e-3.
        steps: optimizer steps of each side.
        seeds: how often both sides are trained; the interval is over them.
        recipes: whether QK norm, hybrid norm, LayerScale and a learnable bias are raced too, each alone, where the
            model is built of stabmon.nn and does not have it.
        progress: called with the steps done, over all sides and seeds, and the loss.

    Raises:
        ValueError: ``steps`` or ``seeds`` is below 1, or the model makes no call of ``sigmoid_attention``.
    """
    _check(steps, seeds)
    losses: dict[str, list[tuple[float, ...]]] = {}
    done = 0
    with same_generators(), same_torch_generators(model):
        for name in ("sigmoid", "softmax", *(RECIPES if recipes else ())):
            for seed in range(seeds):
                copied = _copied(model, optimizer, name if name in RECIPES else None)
                if copied is None:
                    break
                report = None if progress is None else partial(_report, progress, done)
                with _attention(name):
                    losses.setdefault(name, []).append(_train(*copied, step, steps, seed, report))
                done += steps
    return _reported(losses)


def race_of_run(
    config: RunConfig,
    *,
    steps: int = 200,
    seeds: int = 3,
    recipes: bool = False,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> RaceReport:
    """Race ``config``: its model, data, precision and rates, those of a training of ``steps`` steps.

    Each seed has weights and data of its own. The arguments are those of ``race``; of a language model other position
    schemes are recipes too.

    Raises:
        FixError: the configuration is one of softmax attention.
        ValueError: ``steps`` or ``seeds`` is below 1.
    """
    _check(steps, seeds)
    if config.model.attention == "softmax":
        raise FixError(f"{config.name} has softmax attention already; a race needs model.attention: sigmoid")
    losses: dict[str, list[tuple[float, ...]]] = {}
    done = 0
    for seed in range(seeds):
        changes = {"training.seed": config.training.seed + seed, "training.steps": steps}
        same = override(config, changes | {"training.evaluate_length": None})
        schemes = positions(config) if recipes else {}
        for name in ("sigmoid", "softmax", *(RECIPES if recipes else ()), *schemes):
            run = override(same, schemes.get(name, {}))
            model = training.build(run, device)
            if name in RECIPES and put_in(name, model) is None:
                continue
            report = None if progress is None else partial(_report, progress, done)
            with _attention(name):
                result = training.train(run, model=model, device=device, watch=False, progress=report)
            losses.setdefault(name, []).append(tuple(result.losses))
            done += steps
    return _reported(losses)


def _attention(name: str) -> AbstractContextManager[None]:
    """Return the context in which one side of a race, or a recipe, is trained."""
    return softmax_in_place() if name == "softmax" else nullcontext()


def _check(steps: int, seeds: int) -> None:
    if min(steps, seeds) < 1:
        raise ValueError(f"steps and seeds must be at least 1, got {steps} and {seeds}")


def _report(progress: Progress, done: int, step: int, loss: float) -> None:
    progress(done + step, loss)


def _reported(losses: dict[str, list[tuple[float, ...]]]) -> RaceReport:
    sides = {name: tuple(seeds) for name, seeds in losses.items()}
    sigmoid, softmax = sides.pop("sigmoid"), sides.pop("softmax")
    if sigmoid == softmax:
        raise ValueError("the model makes no call of stabmon.kernels.sigmoid_attention: its softmax twin is the same")
    return RaceReport.of(sigmoid, softmax, sides)


def _copied(
    model: nn.Module, optimizer: Optimizer | Callable[[nn.Module], Optimizer] | None, recipe: str | None
) -> tuple[nn.Module, Optimizer] | None:
    """Return a copy of the model, with the recipe, and its optimizer; None where the recipe is refused."""
    if isinstance(optimizer, Optimizer):
        copy, made = deepcopy((model, optimizer))
    else:
        copy, made = deepcopy(model), None
    new = [] if recipe is None else put_in(recipe, copy)
    if new is None:
        return None
    if made is None:
        made = AdamW(copy.parameters(), lr=1e-3) if optimizer is None else optimizer(copy)  # type: ignore[operator]
    elif new:
        made.add_param_group({"params": new, "weight_decay": 0.0})
    return copy.train(), made


def _train(
    model: nn.Module, optimizer: Optimizer, step: Step, steps: int, seed: int, progress: Progress | None
) -> tuple[float, ...]:
    _seed(seed)
    optimizer.zero_grad()
    losses = list[Tensor]()
    for index in range(steps):
        loss = step(model, seed * steps + index)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if progress is not None:
            progress(index + 1, loss.item())
    return tuple(torch.stack(losses).float().tolist())


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # the user's step may draw from the global generator
