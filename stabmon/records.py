"""Records of a model's map, a run, and a run's state.

Every record is frozen, refuses unknown keys, and travels as JSON; NaN and infinities travel as the strings
"NaN", "Infinity" and "-Infinity", because JSON has none. Nothing here imports torch.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field


class Record(BaseModel):
    """The base of every record: frozen, closed, and safe for NaN in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", use_attribute_docstrings=True)


class Severity(StrEnum):
    """The importance of a finding."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for information, 1 for a warning, 2 for an error."""
        return ("info", "warning", "error").index(self.value)

    @property
    def style(self) -> str:
        """The terminal style, as rich names it."""
        return ("cyan", "yellow", "bold red")[self.rank]


class Evidence(StrEnum):
    """The grade of evidence for a fact, which every rule prints."""

    PAPER = "paper"
    LITERATURE = "literature"
    MEASURED = "measured"
    REMEMBERED = "remembered"
    ARITHMETIC = "arithmetic"
    """It follows from a formula alone; whether it does harm in a training was not measured."""


Unknown = Literal["stream", "branch", "block"]


class Attention(Record):
    """One attention of a model, as discovery found it."""

    layer: str
    """The key of its series: the block's name (``layers.3``), or the module's own where a block has several."""
    module: str
    """Path of the module that computes the attention: ``layers.3.attention``."""
    block: str
    """Path of the residual block around it."""
    branch: str | None
    """Path of the module whose output is added to the residual stream, or None where no module's is."""
    kind: Literal["sigmoid", "softmax", "functional"]
    """Our SigmoidAttention, any softmax attention, or sigmoid attention in a module of another kind."""
    door: str = ""
    """Name of the function or module through which the attention was seen: "sigmoid_attention"."""
    heads: int
    head_dim: int
    max_length: int | None = None
    """Longest training length, in keys, where the module says it."""
    is_causal: bool | None = None
    bias: float | Literal["learnable"] | None = None
    """A number that all heads share, "learnable", or None where it is unknown or follows the length as -log n."""
    position: Literal["rope", "alibi"] | None = None
    qk_norm: bool = False
    hybrid_norm: bool = False
    layer_scale: bool = False
    editable: bool = False
    """True for attention of Transformers and converted attention: ``stabmon.conversion.edit`` changes it in place."""
    unknown: tuple[Unknown, ...] = ()
    """Parts of the residual addition that are no module's input or output, so that no hook can read them."""


class NormInput(Record):
    """The input of a norm in the first pass."""

    module: str
    """Path of the module that computes it."""
    mean_square: float
    """Mean over all rows of the square that the norm divides by the root of: the variance for a layer norm."""
    eps: float
    """The number that it adds to that."""


class ModelMap(Record):
    """The attentions that ``watch`` and ``preflight`` found in a model, in the order in which a pass runs them."""

    attentions: tuple[Attention, ...]
    parameters: int
    """Number of trainable parameters."""
    small_norms: tuple[NormInput, ...] = ()
    """Norms whose input was within their eps, in the order of the pass; those of zeros are not among them."""

    def attention(self, layer: str) -> Attention | None:
        """Return the attention whose series are kept under ``layer``, or None."""
        return next((attention for attention in self.attentions if attention.layer == layer), None)


class RunState(StrEnum):
    """The state of a run.

    A writer stores the first three; the others are what a reader says of a run that is stored as running, or not yet.
    """

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    """It was closed because of an exception."""
    STARTING = "starting"
    """Its process lives, as far as is known, and no step has ended yet."""
    PAUSED = "paused"
    """Its process lives, but no step has ended for ten minutes, or it is stopped."""
    STALE = "stale"
    """Its heartbeat is late, and whether its process lives cannot be known from here."""
    CRASHED = "crashed"
    """Its process has ended without closing it: it was killed, or left by ``os._exit``."""


LIVING = (RunState.STARTING, RunState.RUNNING, RunState.PAUSED)
"""States of a run whose process lives, as far as is known."""


class RunInfo(Record):
    """The description of a run, known when it starts."""

    name: str
    created: datetime
    model: ModelMap
    config: dict[str, Any] = Field(default_factory=dict)
    """The configuration that the run was started from, as written."""
    versions: dict[str, str] = Field(default_factory=dict)
    """stabmon, torch, triton and the device's name."""
    limits: dict[str, Any] = Field(default_factory=dict)
    """Limits of its rules that are not the default, as ``stabmon.rules.Limits.from_mapping`` reads it."""


class Failure(Record):
    """A number or a part of a run that is missing, and why; the run's other numbers are right."""

    subject: str
    """The number, module, rule or sink: "learning rate", "layers.3.attention", "TensorBoard"."""
    reason: str
    """The cause, and what to do."""
    first_step: int | None
    """Step of the training at which it was first seen, or None before the first."""
    last_step: int | None
    count: int = 1
    """Times that it was seen; what is switched off after a failure is seen once."""

    @property
    def text(self) -> str:
        """The failure in one sentence."""
        return f"{self.subject}: {self.reason}"

    @property
    def when(self) -> str:
        """The steps in words: "step 3", "steps 3 to 90, 12 times", or "" before the first."""
        if self.last_step is None:
            return ""
        if self.count == 1:
            return f"step {self.last_step:,}"
        steps = "up to step" if self.first_step is None else f"steps {self.first_step:,} to"
        return f"{steps} {self.last_step:,}, {self.count:,} times"


class Heartbeat(Record):
    """The current state of a run; rewritten with every sampled step."""

    state: RunState
    step: int
    """Latest sampled step; -1 before the first."""
    time: float
    """Seconds since the epoch at the writer, while the training goes on; it does not change where no step ends."""
    samples: int = 0
    dropped: int = 0
    """Samples that are lost: the queue was full, the disk refused them, or they could not be made."""
    overhead: float | None = None
    """Seconds that stabmon took on the training thread, over seconds of training; None before the first step."""
    interval: float = 10.0
    """Longest pause between heartbeats that is normal for this run, in seconds."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def words(self) -> str:
        """The state in words, with what was lost: "finished, 12 of 150 samples lost", "finished without a sample"."""
        if self.state in (RunState.FINISHED, RunState.FAILED) and not self.samples + self.dropped:
            return f"{self.state} without a sample"
        lost = f", {self.dropped:,} of {self.samples + self.dropped:,} samples lost" if self.dropped else ""
        return f"{self.state}{lost}"
