"""Every threshold of every rule: one model per family, each field with its meaning, unit and source.

All are positive numbers; ``inf`` switches an upper limit off. How they are read and changed stands in ``limits``.
"""

from typing import Any

from pydantic import Field

from stabmon.records import Record


def limit(default: float, *, unit: str, source: str) -> Any:
    """Declare a threshold: a positive number with its unit and where the number comes from."""
    return Field(default, gt=0, json_schema_extra={"unit": unit, "source": source})


class AttentionLimits(Record):
    """Limits of the attention rules, ATT."""

    twin_ratio_max: float = limit(10, unit="1", source="measured: 0.5 to 1.7 with b = -log n, 8 to 700 with b = 0")
    """Attention norm over that of softmax on the same q, k, v, at the start of a run."""
    row_mass_max: float = limit(10, unit="1", source="measured: 0.8 to 1.7 with b = -log n, 16 to 1024 with b = 0")
    """Mean sum of a row's weights in the first steps, where the twin ratio was not measured."""
    first_steps: int = limit(
        3, unit="steps", source="measured: at learning rate 2e-2 healthy rows had outgrown their bias by step 9"
    )
    """How many steps count as the start of a run, whose rows show the bias and not what was learnt."""
    tamed_branch_ratio_max: float = limit(
        0.03,
        unit="1",
        source="measured: at 0.1 (LayerScale 1e-2, b = 0, n = 256) a run ended 0.15 nats worse; "
        "as remembered from arXiv 2409.04431, vision trains with LayerScale 1e-4 and no bias",
    )
    """Branch ratio up to which a LayerScale makes a large attention norm harmless."""
    row_mass_min: float = limit(
        0.05, unit="1", source="measured: 0.77 with b = -log n, 0.015 four lower, 0.004 at b = -10"
    )
    """Mean sum of a row's weights below which a head adds almost nothing."""
    starved_heads_min: float = limit(
        0.5, unit="1", source="stabmon's choice: with ALiBi and -log n its flat heads are not starved"
    )
    """Share of a layer's heads that must be starved before the layer is called so."""
    logit_std_max: float = limit(
        2, unit="1", source="measured: the row mass is exp(s²/2), 6.8 at s = 2; 2.4 in a healthy run"
    )
    """Standard deviation of the logits above which rows outgrow the bias."""
    logit_std_error: float = limit(4, unit="1", source="measured: row mass 116 at s = 4, n = 4096")
    """Standard deviation of the logits from which logit growth is an error."""
    logit_max: float = limit(100, unit="1", source="Kimi K2, arXiv 2507.20534: QK clip at 100 per head")
    """Largest logit of a sigmoid attention."""
    softmax_logit_max: float = limit(1000, unit="1", source="Wortsman et al., arXiv 2309.14322: damage from about 1e3")
    """Largest logit of a softmax attention, which renormalises its rows."""
    logit_growth_min: float = limit(2, unit="1", source="stabmon's choice, to be calibrated")
    """Growth over the run's own start before large logits are called growth."""
    grown_row_mass_min: float = limit(4, unit="1", source="measured: 0.8 to 2.4 in healthy runs; high from 4 to 10")
    """Row mass from which a wide logit distribution does harm."""
    saturated_fraction_max: float = limit(0.1, unit="1", source="stabmon's choice: 51 keys of a causal row at n = 1024")
    """Share of weights above 0.5; it must also have doubled since the start of the run."""
    norm_growth_max: float = limit(
        300, unit="1", source="measured at high learning rates: 1,000 to 15,000 without QK norm, 8 to 80 with it"
    )
    """Attention norm over its own value at the start of the run."""
    confirmations: int = limit(3, unit="samples", source="trainscope 1.8.1 asks for three steps")
    """Consecutive samples that must agree before a finding opens after the first step."""


class ResidualLimits(Record):
    """Limits of the residual-stream rules, RES."""

    branch_ratio_max: float = limit(
        20,
        unit="1",
        source="measured in block 0 at step 0: 2.1 to 3.8 healthy, 103 at b = -3; 20 is their geometric middle",
    )
    """Rms of the attention branch over rms of the stream it is added to, without hybrid norm."""
    hybrid_branch_ratio_max: float = limit(
        75, unit="1", source="measured in block 0 at step 0: 49 in a healthy run with hybrid norm, 103 when b is wrong"
    )
    """The same with hybrid norm, whose branch has unit rms whatever the embedding's scale is."""
    first_steps: int = limit(
        3, unit="steps", source="measured: block 0 of a run that QK norm had mended learnt its way to a ratio of 63"
    )
    """How many steps count as the start of a run, whose ratios show the model's design and not what was learnt."""


class SpikeLimits(Record):
    """What counts as a spike against the recent past of a series."""

    deviations_max: float = limit(6, unit="robust standard deviations", source="OLMo-core: mean + 6σ of the last 128")
    """Distance from the median of the window, in 1.4826 times its median absolute deviation."""
    window: int = limit(128, unit="samples", source="OLMo-core: the last 128 steps")
    """Length of the recent past."""
    samples_min: int = limit(32, unit="samples", source="stabmon's choice: a quarter of the window")
    """How much past there must be before anything is called a spike."""
    confirmations: int = limit(3, unit="samples", source="trainscope 1.8.1 asks for three steps")
    """Consecutive samples above the limit that make a spike more than isolated."""
    isolated_max: int = limit(5, unit="spikes", source="arXiv 2409.04431 as remembered: 2 to 5 isolated spikes a run")
    """Spikes within the window that still count as isolated."""


class GradientLimits(SpikeLimits):
    """Limits of the gradient rules, GRD."""

    spread_floor: float = limit(
        0.1, unit="share of the median", source="stabmon's choice: 6 of them are 1.6 times the median"
    )
    """Smallest robust standard deviation, so that a very quiet series does not make noise a spike."""


class LossLimits(SpikeLimits):
    """Limits of the loss rules, LOS."""

    spread_floor: float = limit(
        0.01, unit="share of the median", source="stabmon's choice: 6 of them are 6 % of the loss"
    )
    """Smallest robust standard deviation, so that a very quiet loss does not make noise a spike."""


class NumericLimits(Record):
    """Limits of the numeric rules, NUM: a number is finite or it is not, so there is only one of time."""

    scaler_samples_max: int = limit(
        10, unit="samples", source="stabmon's choice: 2^10 from torch's initial loss scale, 65536"
    )
    """Samples in a row in which gradients alone may be infinite while a GradScaler looks for its scale."""


class ConfigurationLimits(Record):
    """Limits of the configuration rules, CFG."""

    bias_length_factor_max: float = limit(
        4, unit="1", source="measured: twin ratio healthy from 0.3 to 3; 51 at b = -3, n = 1024"
    )
    """How many times exp(b)·n may differ from 1, either way."""
    first_steps: int = limit(20, unit="steps", source="stabmon's choice: before warm-up has moved a weight far")
    """How many steps count as the start of a run."""


class UpdateLimits(Record):
    """Limits of the rules about the updates of the weights, UPD."""

    stream_jump_max: float = limit(
        2.5,
        unit="1",
        source="measured without warm-up: 3.8, 24 and 153 at learning rates 10, 30 and 100 times a healthy one; "
        "1.2 to 1.6 in healthy runs, with and without warm-up",
    )
    """Rms of a block's output over that of the step before."""
    first_steps: int = limit(20, unit="steps", source="stabmon's choice: shorter than any warm-up in use")
    """How many steps count as the start of a run, in which a warm-up would keep the updates small."""
    full_rate_share: float = limit(0.5, unit="1", source="stabmon's choice: half the rate is no warm-up")
    """Share of the largest learning rate so far that the first step must have had for a run without warm-up."""
    stream_growth_max: float = limit(
        32,
        unit="1",
        source="measured: 2 to 20 in healthy runs of 160 steps, 53 to 1,800 at learning rates too high for the model",
    )
    """Rms of a block's output over that at the first sample."""
    early_steps: int = limit(
        300, unit="steps", source="measured: a rate that is too high shows within 20 steps; in long runs streams grow"
    )
    """Steps in which growth of the stream is laid at the learning rate's door."""
    confirmations: int = limit(3, unit="samples", source="trainscope 1.8.1 asks for three steps")
    """Consecutive samples that must agree before a finding opens."""
