"""The short trainings behind the rules' reference plots, by name: sound ones, and the same with one thing wrong.

Each is a shipped kind of training at a size that a CPU finishes in half a minute. Faults that no configuration can
express (weights drawn too large, a scaled loss) are changes to the model, before the first step or on the way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stabmon.config import RunConfig, TrainingConfig, override
from stabmon.workloads.intervention import Intervention

Change = Callable[[nn.Module], None]

BASE = RunConfig.model_validate(
    {
        "name": "reference",
        "model": {"layers": 4, "width": 64, "heads": 4, "context": 128, "bias": "length", "position": "rope"},
        "training": {"steps": 160, "batch": 8, "learning_rate": 2e-3, "warmup": 10, "clip": 1.0},
    }
)
"""Language, 4 layers, n = 128, b = -log n: healthy from the first step to the last."""


def unchanged(model: nn.Module) -> None:
    """Leave ``model`` as it is."""


class Late(NamedTuple):
    """An intervention before step ``step``: a change to the model, to the settings, or to both."""

    step: int
    change: Change = unchanged
    settings: Mapping[str, Any] = {}


class ReferenceTraining(NamedTuple):
    """One training: how its configuration differs from ``BASE``, and what no configuration can express."""

    about: str
    settings: Mapping[str, Any] = {}
    change: Change = unchanged
    """Applied to the new model, before the first step."""
    late: Late | None = None

    @property
    def config(self) -> RunConfig:
        """The configuration of the run."""
        return override(BASE, self.settings)

    @property
    def intervention(self) -> Intervention | None:
        """The change on the way, as the training loop takes it."""
        if self.late is None:
            return None
        settings = {f"training.{key}": value for key, value in self.late.settings.items()}
        later: TrainingConfig = override(self.config, settings).training
        return Intervention(self.late.step, self.late.change, later)


def scale_gradients(model: nn.Module, factor: float, *, once: bool = False) -> None:
    """Multiply the gradients of ``model`` by ``factor``, as a loss multiplied by it would; in one step if ``once``."""

    def scale(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if once:
                handle.remove()

    handle = model.register_forward_hook(scale)


def scale_weights(model: nn.Module, prefix: str, factor: float) -> None:
    """Multiply the matrices of ``model`` whose names begin with ``prefix`` by ``factor``."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(prefix) and weight.dim() >= 2:
                weight.mul_(factor)


def set_bias(model: nn.Module, layer: str, value: float, heads: Sequence[int]) -> None:
    """Set the bias of some ``heads`` of one layer's attention."""
    bias = model.get_submodule(f"{layer}.attention").bias
    assert isinstance(bias, Tensor)
    bias.detach()[list(heads)] = value


_HOT, _DEEP, _LONG, _SPEECH, _VISION = (
    {"training.learning_rate": 6e-2},
    {"model.layers": 12, "model.norm": "post", "training.steps": 20},
    {"model.context": 1024, "training.steps": 20, "training.batch": 2},
    {"workload": "speech"},
    {"workload": "vision", "model.layers": 12, "model.context": 64, "model.position": "learned", "training.steps": 60},
)
TRAININGS: dict[str, ReferenceTraining] = {
    "sound": ReferenceTraining("4 layers, n = 128, b = -log n, rate 2e-3"),
    "no-bias": ReferenceTraining("the same with b = 0", {"model.bias": 0.0}),
    "starved": ReferenceTraining("the same with b = -10", {"model.bias": -10.0}),
    "other-bias": ReferenceTraining("b = -3 (-log n = -4.85)", {"model.bias": -3.0}),
    "post-norm": ReferenceTraining("the same with norm(x + f(x))", {"model.norm": "post"}),
    "hot": ReferenceTraining("rate 6e-2, no QK norm", _HOT),
    "hot-qk-norm": ReferenceTraining("rate 6e-2 with QK norm", _HOT | {"model.qk_norm": True}),
    "warm": ReferenceTraining("rate 2e-2, warm-up of 10 steps", {"training.learning_rate": 2e-2}),
    "no-warm-up": ReferenceTraining("rate 2e-2, no warm-up", {"training.learning_rate": 2e-2, "training.warmup": 0}),
    "slow": ReferenceTraining("rate 1e-5, clipped at 1", {"training.learning_rate": 1e-5}),
    "stuck": ReferenceTraining("rate 1e-8", {"training.learning_rate": 1e-8}),
    "dead-layer": ReferenceTraining(
        "b set to -16 in layer 1 at step 60",
        late=Late(60, partial(set_bias, layer="layers.1", value=-16.0, heads=range(4))),
    ),
    "uneven-heads": ReferenceTraining(
        "b set to -16 in three heads of layer 1 at step 60",
        late=Late(60, partial(set_bias, layer="layers.1", value=-16.0, heads=(1, 2, 3))),
    ),
    "summed-loss": ReferenceTraining(
        "the loss summed, not averaged, from step 90 on",
        late=Late(90, partial(scale_gradients, factor=float(BASE.training.batch))),
    ),
    "tiny-loss": ReferenceTraining(
        "the loss divided by 1e7", {"training.steps": 60}, partial(scale_gradients, factor=1e-7)
    ),
    "diverging": ReferenceTraining(
        "rate 0.3 from step 80 on, no clipping", late=Late(80, settings={"learning_rate": 0.3, "clip": None})
    ),
    "bad-batch": ReferenceTraining("a batch of noise at step 140", {"training.bad_batch": 140}),
    "infinite-gradient": ReferenceTraining(
        "an infinite gradient at step 40",
        {"training.steps": 60},
        late=Late(40, partial(scale_gradients, factor=math.inf, once=True)),
    ),
    "overflow": ReferenceTraining(
        "the gradients times 3e38 at step 40",
        {"training.steps": 60},
        late=Late(40, partial(scale_gradients, factor=3e38, once=True)),
    ),
    "narrow-heads": ReferenceTraining("QK norm, 4 heads of 16 dimensions", {"model.qk_norm": True}),
    "wide-head": ReferenceTraining("QK norm, 1 head of 64 dimensions", {"model.qk_norm": True, "model.heads": 1}),
    "tiny-embedding": ReferenceTraining(
        "the embedding at a ten-thousandth of its size",
        {"training.steps": 60},
        partial(scale_weights, prefix="embedding", factor=1e-4),
    ),
    "fp16": ReferenceTraining("fp16, rate 2e-3", {"training.precision": "fp16"}),
    "fp16-hot": ReferenceTraining("fp16, rate 6e-2", _HOT | {"training.precision": "fp16"}),
    "large-feed-forward": ReferenceTraining(
        "feed-forward weights of layer 0 eight times as large",
        {"training.steps": 60},
        partial(scale_weights, prefix="layers.0.feed_forward", factor=8.0),
    ),
    "deep": ReferenceTraining("12 layers, post-norm, weights as PyTorch draws them", _DEEP),
    "deep-large-weights": ReferenceTraining(
        "12 layers, post-norm, weights ten times as large", _DEEP, partial(scale_weights, prefix="layers.", factor=10.0)
    ),
    "long": ReferenceTraining("n = 1024, b = -log n", _LONG),
    "long-no-bias": ReferenceTraining("n = 1024, b = 0", _LONG | {"model.bias": 0.0}),
    "longer-evaluation": ReferenceTraining(
        "trained at 128 keys, b stays at -log 128", {"training.evaluate_length": 1024}
    ),
    "speech": ReferenceTraining("speech, 4 layers, n = 128", _SPEECH),
    "speech-bad-batch": ReferenceTraining(
        "speech, a batch of noise at step 100", _SPEECH | {"training.bad_batch": 100}
    ),
    "vision-deep": ReferenceTraining("vision, 12 layers, no LayerScale", _VISION),
    "vision-deep-layer-scale": ReferenceTraining(
        "vision, 12 layers, LayerScale 0.1", _VISION | {"model.layer_scale": 0.1}
    ),
}
