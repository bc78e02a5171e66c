"""The configuration of a run: typed, closed, read from YAML, with messages that name the key and the nearest known one.

No torch is imported here, so ``stabmon serve`` and the rules can read a configuration too.
"""

import math
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from stabmon import yaml_file
from stabmon.config_messages import explain
from stabmon.errors import ConfigError
from stabmon.names import RUN_NAME

Count = Annotated[int, Field(ge=1, le=2**24)]
"""A number of things that a machine could hold; steps have no such limit."""
Positive = Annotated[FiniteFloat, Field(gt=0)]
MATRIX = "evaluation.yaml"
"""The file among those that ship which holds many runs: the matrix of ``stabmon evaluate``."""


class Section(BaseModel):
    """A part of a configuration: frozen, closed, and strict about types (``true`` is no number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ModelConfig(Section):
    """The transformer: the same settings in every workload."""

    layers: Annotated[int, Field(ge=1, le=1000)]
    """Number of blocks."""
    width: Count
    """Channels of the residual stream; a multiple of heads."""
    heads: Count
    """Attention heads of each block."""
    context: Count
    """Longest sequence: bytes of text, patches of an image, frames of speech; -log(context) is the bias "length"."""
    attention: Literal["sigmoid", "softmax"] = "sigmoid"
    """The function from logits to weights; softmax takes no bias, so it ignores the one given."""
    bias: FiniteFloat | Literal["length", "learnable"] = "length"
    """Added to every logit: a number, "length" (-log context), or "learnable" (starts at bias_start and trains)."""
    bias_start: FiniteFloat | None = None
    """First value of a learnable bias, or null for -log context."""
    norm: Literal["pre", "post"] = "pre"
    """Place of each branch's norm: x + f(norm(x)), or norm(x + f(x)) as the first transformers did."""
    qk_norm: bool = False
    """RMS norm per head on queries and keys."""
    layer_scale: Positive | None = None
    """First gain of a LayerScale on both branches, or null for none."""
    hybrid_norm: bool = False
    """A second norm on both branches: x + norm(f(norm(x)))."""
    position: Literal["learned", "rope", "alibi", "none"] = "rope"
    """Encoding of positions; "none": a causal model still knows a position by the number of keys it sees."""
    pooling: Literal["mean", "token"] = "mean"
    """Input of a vision model's classifier: the mean over patches, or a class token before them, one more key."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and {self.heads} heads")
        if self.position == "rope" and (self.width // self.heads) % 2:
            raise ValueError(
                f"rope rotates pairs of channels, so width / heads must be even, got {self.width // self.heads}; "
                "change heads, or take position 'alibi', 'learned' or 'none'"
            )
        return self

    @model_validator(mode="after")
    def _bias_starts(self) -> Self:
        if self.bias_start is not None and self.bias != "learnable":
            raise ValueError(
                f"bias_start is where bias 'learnable' starts, got bias {self.bias!r}; leave bias_start out"
            )
        return self


class TrainingConfig(Section):
    """AdamW (.9, .95) with linear warm-up, then a cosine to a tenth of the peak at the last step."""

    steps: Annotated[int, Field(ge=1)]
    """Optimizer steps."""
    batch: Count
    """Sequences a step."""
    learning_rate: Positive
    """Peak learning rate."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate grows linearly to its peak."""
    clip: Positive | None = 1.0
    """Largest L2 norm of all gradients together, or null for no clipping."""
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0.1
    """Decay of the matrices; gains, biases and norms do not decay."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the first weights and, independently, of the data."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are autocast, fp16 with a GradScaler: weights stay in fp32."""
    bad_batch: Annotated[int, Field(ge=0)] | None = None
    """Step (from 0) whose batch is replaced by a corrupt one, noise with targets that do not belong to it, or null."""
    evaluate_length: Count | None = None
    """Length of a validation pass after the training, as model.context counts it, or null for none."""


class MonitorConfig(Section):
    """Sampling by stabmon: every step up to ``dense``, then one in ``every``."""

    dense: Annotated[int, Field(ge=0)] = 200
    """First steps, all of which are sampled."""
    every: Count = 10
    """Distance between sampled steps after that."""
    rows: Count = 16
    """Query rows per head and call whose logits are read at a sampled step."""


class RunConfig(Section):
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=RUN_NAME)]
    """Name of the run and of its folder: letters, digits and '_', from the second on '.' and '-' too."""
    workload: Literal["language", "vision", "speech"] = "language"
    """The task: the next byte of Python's own source, ten classes of scanned digits, or the speakers of vowels."""
    model: ModelConfig
    """The model."""
    training: TrainingConfig
    """The training."""
    monitor: MonitorConfig = MonitorConfig()
    """The sampling."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        longer = self.training.evaluate_length or 0
        if self.workload == "vision":
            for key, length in (("model.context", self.model.context), ("training.evaluate_length", longer)):
                if math.isqrt(length) ** 2 != length:
                    raise ValueError(
                        f"vision cuts a square image: {key} must be a square number of patches, got {length}"
                    )
        elif self.model.position == "learned" and longer > self.model.context:
            raise ValueError(
                f"learned positions end at model.context {self.model.context}, got training.evaluate_length {longer}; "
                "take another position"
            )
        return self


def documented() -> dict[str, Path]:
    """Return the configurations that ship with stabmon, by name (the file's name without ``.yaml``)."""
    folder = Path(__file__).parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.name != MATRIX}


def load(path: str | Path) -> RunConfig:
    """Read a configuration from a YAML file, or a shipped one by its name (``naive``).

    Raises:
        ConfigError: no such file, no YAML, an unknown key or a value of another type; the message names file and key.
    """
    shipped = documented()
    file = Path(path) if os.path.exists(path) else shipped.get(str(path), Path(path))
    near = get_close_matches(str(path), shipped, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    values = yaml_file.read(file, "the configuration", f"{hint}give a YAML file or one of {', '.join(shipped)}")
    return _validated(values, str(file))


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return ``config`` with some values changed, each named by its dotted key: ``{"training.steps": 10}``.

    Raises:
        ConfigError: as ``load``; a key whose section does not exist is an unknown key.
    """
    values = config.model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        section_values = values
        for section in sections:
            section_values = section_values.setdefault(section, {})
            if not isinstance(section_values, dict):
                raise ConfigError(f"override: {key!r} names no setting: {section!r} has no parts")
        section_values[last] = value
    return _validated(values, "override")


def _validated(values: Any, source: str) -> RunConfig:
    if not isinstance(values, dict):
        got = "nothing" if values is None else type(values).__name__
        raise ConfigError(f"{source} must hold keys and values (name, model, training), got {got}")
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig, source)) from error
