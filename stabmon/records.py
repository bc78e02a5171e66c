"""The words of stabmon as data: what a model looks like, what was found in a run, and what mends it.

Every record is frozen, refuses unknown keys, and travels as JSON; NaN and infinities travel as the strings
"NaN", "Infinity" and "-Infinity", because JSON has none. Nothing here imports torch.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn


class Record(BaseModel):
    """The base of every record: frozen, closed, and safe for NaN in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", use_attribute_docstrings=True)


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for information, 1 for a warning, 2 for an error."""
        return ("info", "warning", "error").index(self.value)

    @property
    def style(self) -> str:
        """How a terminal shows it, as rich names styles."""
        return ("cyan", "yellow", "bold red")[self.rank]


class Evidence(StrEnum):
    """How a fact is known: the grade that every rule prints."""

    PAPER = "paper"
    LITERATURE = "literature"
    MEASURED = "measured"
    REMEMBERED = "remembered"


class Attention(Record):
    """One attention of a model, as discovery found it."""

    layer: str
    """The key of its series: the block's name (``layers.3``), or the module's own where a block has several."""
    module: str
    """Path of the module that computes the attention: ``layers.3.attention``."""
    block: str
    """Path of the residual block around it."""
    branch: str
    """Path of the module whose output is added to the residual stream."""
    kind: Literal["sigmoid", "softmax", "functional"]
    """Our SigmoidAttention, nn.MultiheadAttention, or a foreign module that calls ``sigmoid_attention``."""
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


class ModelMap(Record):
    """What ``watch`` and ``preflight`` found in a model, in natural order of the layers."""

    attentions: tuple[Attention, ...]
    parameters: int
    """Number of trainable parameters."""

    def attention(self, layer: str) -> Attention | None:
        """Return the attention whose series are kept under ``layer``, or None."""
        return next((attention for attention in self.attentions if attention.layer == layer), None)


class FixKind(StrEnum):
    """The knobs that stabmon can name."""

    BIAS = "bias"
    LEARNABLE_BIAS = "learnable_bias"
    QK_NORM = "qk_norm"
    LAYER_SCALE = "layer_scale"
    HYBRID_NORM = "hybrid_norm"
    PRE_NORM = "pre_norm"
    POSITION = "position"
    LEARNING_RATE = "learning_rate"
    WARMUP = "warmup"
    CLIP = "clip"
    PRECISION = "precision"
    LENGTH = "length"

    @property
    def of_training(self) -> bool:
        """Whether it is a knob of the training loop and not of the model."""
        return self in _OF_TRAINING


_OF_TRAINING = (FixKind.LEARNING_RATE, FixKind.WARMUP, FixKind.CLIP, FixKind.PRECISION, FixKind.LENGTH)


class Safety(StrEnum):
    """When a fix can be applied without throwing away what was learnt."""

    ANY_TIME = "any time"
    BEFORE_TRAINING = "before training"
    BY_HAND = "by hand"


class Effect(Record):
    """What a fix is expected to do to one number of one layer."""

    metric: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.metric.replace('_', ' ')} {self.before:.3g} -> {self.after:.3g}"


class Fix(Record):
    """One change to one module, or to the training, that is expected to mend a finding."""

    kind: FixKind
    module: str
    """Path of the attention module to change; empty for a fix outside the model, such as the learning rate, and for
    QK norm in every layer."""
    value: float | None = None
    """The number that the kind needs, or None: the bias; the first value of a learnable bias (None: the present one);
    the first gain of LayerScale, or of QK norm (None: what keeps the present logits); the bias that goes with a scheme
    of positions (None: the present one); the factor on the learning rate; the warm-up in steps; the largest gradient
    norm; the sequence length in keys."""
    setting: str | None = None
    """The name that the kind needs: the precision (``bf16``) or the position scheme (``rope``)."""
    safety: Safety
    why: str
    """One sentence: why this knob and this value."""
    code: str
    """The line or lines that a user would write for it."""
    diff: str = ""
    """The same as a change to the code that builds the model or trains it, in the form of a unified diff."""
    effect: Effect | None = None
    """What it is expected to do, as a number; None where nothing was measured that says so."""
    made_of: tuple[Fix, ...] = ()
    """The changes that it is made of where they are several, that of ``kind`` first; ``code`` and ``diff`` hold all."""

    @property
    def parts(self) -> tuple[Fix, ...]:
        """Each change by itself."""
        return self.made_of or (self,)

    def __str__(self) -> str:
        if self.made_of:
            return ", with ".join(map(str, self.made_of))
        value = "" if self.value is None else f" = {self.value:.4g}"
        setting = "" if self.setting is None else f" = {self.setting}"
        everywhere = " in every layer" if self.kind is FixKind.QK_NORM else ""
        place = f" in {self.module}" if self.module else everywhere
        return f"{self.kind.replace('_', ' ')}{value}{setting}{place}"

    def apply(self, model: nn.Module) -> Applied:
        """Carry the fix out on ``model``, in place, and return what that changed.

        Raises:
            FixError: this model does not let stabmon change it; the message holds the code to write.
        """
        from stabmon.fixes import apply

        return apply(self, model)


class Applied(Record):
    """What carrying out a fix did to a model."""

    module: str
    """Path of the module that was changed."""
    changed: str
    """One sentence: what is different now, and what of the learnt function it touches."""
    parameters: tuple[str, ...] = ()
    """Paths of new parameters, which an optimizer made before does not know."""


Key = tuple[str, str | None, int]
"""What tells one event from another within a run: code of the rule, layer, and the step at which it opened."""


class Cell(Record):
    """One number of one series: what a finding was read from."""

    metric: str
    layer: str | None
    head: int | None
    step: int
    value: float


class Finding(Record):
    """One event: a rule saw something, from the step at which it opened to the one at which it cleared."""

    code: str
    name: str
    severity: Severity
    evidence: Evidence
    layer: str | None
    head: int | None
    """The worst head, or None where the rule speaks of a layer or of the run."""
    metric: str
    value: float
    """The worst value seen so far."""
    limit: float
    message: str
    """One sentence with the numbers filled in."""
    cause: str
    opened: int
    """First step at which the rule saw it."""
    peak: int
    """Step of ``value``."""
    last: int
    """Latest step at which the rule saw it."""
    cleared: int | None = None
    """First step at which it was over; None while it is open."""
    cells: tuple[Cell, ...] = ()
    """The numbers it was read from."""
    fixes: tuple[Fix, ...] = ()
    """What to try, best first."""
    confidence: float = 1.0
    """How sure it is, from 0 to 1: it rises with the distance from the limit and with the samples that agree."""
    follows: Key | None = None
    """Key of the finding whose symptom this one is; None for a finding that stands for itself."""
    lead: int | None = None
    """Steps from its opening to that of the first finding about the loss that follows it; None while there is none."""

    @property
    def fix(self) -> Fix:
        """The first fix to try.

        Raises:
            LookupError: the rule names none.
        """
        if not self.fixes:
            raise LookupError(f"{self.code} {self.name} suggests no fix; see `stabmon rules {self.code}`")
        return self.fixes[0]

    @property
    def key(self) -> Key:
        """What tells this event from others of the run."""
        return (self.code, self.layer, self.opened)


class RunState(StrEnum):
    """How a run stands; ``STALE`` is what a reader says of a running run whose heartbeat is old."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STALE = "stale"


class RunInfo(Record):
    """What is known of a run when it starts."""

    name: str
    created: datetime
    model: ModelMap
    config: dict[str, Any] = Field(default_factory=dict)
    """The configuration that the run was started from, as written."""
    versions: dict[str, str] = Field(default_factory=dict)
    """stabmon, torch, triton and the device's name."""
    limits: dict[str, Any] = Field(default_factory=dict)
    """What its rules go by where that is not the default, as ``stabmon.rules.Limits.from_mapping`` reads it."""


class Heartbeat(Record):
    """How a run stands now; rewritten with every sampled step."""

    state: RunState
    step: int
    """Latest sampled step; -1 before the first."""
    time: float
    """Seconds since the epoch at the writer."""
    samples: int = 0
    dropped: int = 0
    """Samples lost because the queue was full or the disk refused them."""
    overhead: float | None = None
    """Seconds that stabmon took on the training thread, over seconds of training; None before the first step."""
    interval: float = 10.0
    """Longest pause between heartbeats that is normal for this run, in seconds."""
