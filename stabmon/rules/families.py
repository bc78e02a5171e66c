"""Every limit of every rule: one model per family, each field with its meaning, unit and source.

All are positive numbers; ``inf`` switches an upper limit (``..._max``) off, and is no other limit. ``limits`` reads and
changes them.
"""

import math
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from stabmon.records import Record


def limit(default: float, *, unit: str, source: str) -> Any:
    """Declare a limit: a positive number with its unit and where the number comes from."""
    return Field(default, gt=0, json_schema_extra={"unit": unit, "source": source})


class FamilyLimits(Record):
    """The limits of a family: numbers; a truth value is refused, although Python takes it for 0 or 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_limit(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if isinstance(value, bool) or (value in (math.inf, "inf", "Infinity") and not name.endswith("_max")):
            raise ValueError(f"{name} must be a number")
        return value


class AttentionLimits(FamilyLimits):
    """Limits of the attention rules, ATT."""

    twin_ratio_max: float = limit(10, unit="1", source="measured: 0.5 to 1.7 with b = -log n, 8 to 700 with b = 0")
    """Attention norm over that of softmax on the same q, k, v, at the start of a run."""
    row_mass_max: float = limit(10, unit="1", source="measured: 0.8 to 1.7 with b = -log n, 16 to 1024 with b = 0")
    """Mean sum of a row's weights in the first steps, where the twin ratio was not measured."""
    first_steps: int = limit(
        3, unit="steps", source="measured: at learning rate 2e-2 healthy rows had outgrown their bias by step 9"
    )
    """Steps that count as the start of a run, whose rows show the bias and not what was learnt."""
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
    """Share of a layer's heads that must be starved before the layer is flagged."""
    starved_samples: int = limit(
        40,
        unit="samples",
        source="measured: vision with b five below -log n had climbed out by sample 40, with b eight below it had not",
    )
    """Samples after which rows that are starved still will not recover by themselves."""
    recovered_row_mass_min: float = limit(
        0.5,
        unit="1",
        source="measured by then: 2.6 to 10 in vision runs that ended well, 0.00002 to 0.15 in those that did not",
    )
    """Row mass of one head from which a model has attention again, although other layers are starved."""
    learnt_share_max: float = limit(
        0.25,
        unit="1",
        source="measured: speech encoders with inactive attention were at 0.01 to 0.07 of their start by sample 40 and "
        "ended as well as any; language and vision at 0.5 to 0.9, and ended worse",
    )
    """Share of its start to which a loss falls where the task hardly needs attention."""
    learning_samples: int = limit(16, unit="samples", source="as the loss rules: longer than any isolated spike")
    """Samples whose median loss is below that of as many before while a model without a causal mask learns."""
    unmasked_row_mass_max: float = limit(
        0.001,
        unit="1",
        source="measured on 196 patches: a bias 6 below -log n, a mass of 0.002, did no harm; 8 below it did",
    )
    """Row mass under which starved rows may do harm in a model without a causal mask."""
    reachable_weight_min: float = limit(
        0.5, unit="1", source="stabmon's choice: a head that looks at one key alone passes half of its value on"
    )
    """Largest weight that a head can give to one key while its queries and keys keep their norms."""
    logit_std_max: float = limit(
        5,
        unit="1",
        source="measured, 4 layers, n = 64 to 128: up to 3.1 in healthy runs, 7.5 to 2,000 in failed ones",
    )
    """Standard deviation of the logits above which rows outgrow the bias."""
    logit_std_error: float = limit(
        8,
        unit="1",
        source="measured: by arithmetic the row mass is exp(s²/2), 116 at s = 4 (n = 4096), until weights saturate",
    )
    """Standard deviation of the logits from which logit growth is an error."""
    logit_max: float = limit(100, unit="1", source="Kimi K2, arXiv 2507.20534: QK clip at 100 per head")
    """Largest logit of a sigmoid attention."""
    softmax_logit_max: float = limit(1000, unit="1", source="Wortsman et al., arXiv 2309.14322: damage from about 1e3")
    """Largest logit of a softmax attention, which renormalises its rows; or bound of it by query and key norms."""
    softmax_harmful_logit_min: float = limit(10_000, unit="1", source="Wortsman et al.: those above 1e4 diverged")
    """The same, from which it is a warning; measured: a run with 1,400 ended as well as others."""
    logit_growth_min: float = limit(2, unit="1", source="stabmon's choice, to be calibrated")
    """Growth over the run's own start before large logits are called growth."""
    grown_row_mass_min: float = limit(4, unit="1", source="measured: 0.8 to 2.4 in healthy runs; high from 4 to 10")
    """Row mass from which a wide logit distribution does harm."""
    saturated_fraction_max: float = limit(0.1, unit="1", source="stabmon's choice: 51 keys of a causal row at n = 1024")
    """Share of weights above 0.5; it must also have doubled since the start of the run."""
    grown_branch_ratio_min: float = limit(
        10,
        unit="1",
        source="measured, for three samples: up to 8 in healthy runs without QK norm, 11 to 16,000 in failed ones",
    )
    """Branch ratio from which grown attention does harm: what the layer adds then drowns what it was given."""
    norm_growth_max: float = limit(
        300, unit="1", source="measured at high learning rates: 1,000 to 15,000 without QK norm, 8 to 80 with it"
    )
    """Attention norm over its own value at the start of the run."""
    dead_row_mass_max: float = limit(
        0.01, unit="1", source="measured: single heads of healthy runs fall to 0.0001, a whole layer's never under 0.05"
    )
    """Mean sum of a row's weights under which a head that was alive adds nothing."""
    dead_branch_ratio_max: float = limit(0.01, unit="1", source="measured: 0.04 and more at the start of healthy runs")
    """Branch ratio under which a layer's attention adds nothing to the stream."""
    uneven_heads_max: float = limit(
        1000, unit="1", source="measured: 4 to 25 in healthy runs, 580 where rows starved, 18,000 where heads died"
    )
    """Largest attention norm of a layer's heads over their median."""
    query_key_max: float = limit(
        60, unit="1", source="measured: 4 to 25 in healthy runs, 41 to 6,000 at learning rates too high without QK norm"
    )
    """Query norm times key norm over √head_dim: the largest logit that such a pair can make."""
    softmax_query_key_max: float = limit(1000, unit="1", source="as for the largest logit; 450 in a healthy run")
    """The same for softmax, which renormalises its rows."""
    query_key_growth_min: float = limit(
        10, unit="1", source="measured: 1 to 7 in healthy runs at usual rates, 17 to 200 in failed ones"
    )
    """Growth of that bound over the run's first sample."""
    confirmations: int = limit(3, unit="samples", source="trainscope 1.8.1 requires three steps")
    """Consecutive samples that must agree before a finding opens after the first step."""
    lasting: int = limit(10, unit="samples", source="stabmon's choice: heads become inactive for single batches")
    """Consecutive samples before a dead or uneven layer is flagged."""


class ResidualLimits(FamilyLimits):
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
        3,
        unit="steps",
        source="measured: block 0 of a run that was healthy with QK norm reached a ratio of 63 by learning",
    )
    """Steps that count as the start of a run, whose ratios show the model's design and not what was learnt."""
    feed_forward_growth_max: float = limit(
        3, unit="1", source="measured at step 0: 1.0 to 1.4 in healthy runs, with hybrid norm too"
    )
    """Growth of a block's stream over what its attention branch alone would make of it, at the start."""
    post_norm_tolerance: float = limit(
        0.005, unit="1", source="measured at step 0: under 0.0001 with post-norm, 0.02 to 0.3 in some block without"
    )
    """Distance from 1 of the rms of every block's output, at the start, up to which the stream itself is normed."""
    deep_layers_min: int = limit(
        12, unit="layers", source="arXiv 2103.17239: LayerScale helps from 12 layers on and is needed from 24"
    )
    """Blocks from which a vision model is called deep."""
    deep_branch_ratio_min: float = limit(
        0.03, unit="1", source="stabmon's choice: 12 such branches add a tenth to the stream's rms"
    )
    """Branch ratio at the start from which a deep model's branches are not small."""


class SpikeLimits(FamilyLimits):
    """Limits for spikes against the recent past of a series."""

    deviations_max: float = limit(6, unit="robust standard deviations", source="OLMo-core: mean + 6σ of the last 128")
    """Distance from the median of the window, in 1.4826 times its median absolute deviation."""
    window: int = limit(128, unit="samples", source="OLMo-core: the last 128 steps")
    """Length of the recent past."""
    samples_min: int = limit(32, unit="samples", source="stabmon's choice: a quarter of the window")
    """Values needed before anything counts as a spike."""
    confirmations: int = limit(3, unit="samples", source="trainscope 1.8.1 requires three steps")
    """Consecutive samples above the limit that make a spike more than isolated."""
    isolated_max: int = limit(5, unit="spikes", source="arXiv 2409.04431 as remembered: 2 to 5 isolated spikes a run")
    """Spikes within the window that still count as isolated."""


class GradientLimits(SpikeLimits):
    """Limits of the gradient rules, GRD."""

    samples_min: int = limit(64, unit="samples", source="measured: vision gradients rise tenfold by sample 40 and stay")
    """Values needed before anything counts as a spike."""
    spread_floor: float = limit(
        0.1, unit="share of the median", source="stabmon's choice: 6 of them are 1.6 times the median"
    )
    """Smallest robust standard deviation, so that a very quiet series does not make noise a spike."""
    rise_max: float = limit(
        8, unit="1", source="measured: at most 3 in healthy runs; a gradient that is clipped all the time is 4 and more"
    )
    """Median gradient norm of the last ``lasting`` samples over that of the window before them."""
    lasting: int = limit(16, unit="samples", source="stabmon's choice: longer than any isolated spike")
    """Samples for which a gradient norm must have stayed up."""
    clipped_share_max: float = limit(
        0.98, unit="1", source="measured: 0.03 to 0.15 in healthy language runs, 1 where the learning rate was 1e-5"
    )
    """Share of the last half window that was above the clipping norm."""
    element_min: float = limit(
        1e-7, unit="1", source="10 times Adam's usual eps of 1e-8; Wortsman et al., arXiv 2309.14322, section 3.4"
    )
    """Root mean square of a gradient's elements, under which Adam's eps takes over."""
    norm_of_start_min: float = limit(
        0.001, unit="1", source="stabmon's choice: no step of such a norm undoes what steps a thousand times larger did"
    )
    """Share of the total gradient norm at the run's start below which no norm is a spike."""
    depth_ratio_max: float = limit(
        100, unit="1", source="measured at step 0: 1.1 to 2.2 over 4 and 12 layers, pre-norm and post-norm"
    )
    """Largest gradient norm of a block over the smallest, at the start of a run."""
    first_steps: int = limit(3, unit="steps", source="as for the attention rules")
    """Steps that count as the start of a run."""


class LossLimits(SpikeLimits):
    """Limits of the loss rules, LOS."""

    spread_floor: float = limit(
        0.01, unit="share of the median", source="stabmon's choice: 6 of them are 6 % of the loss"
    )
    """Smallest robust standard deviation, so that a very quiet loss does not make noise a spike."""
    rise_min: float = limit(
        1e-6, unit="1", source="by arithmetic: float32 resolves a cross-entropy of logits of 10 to 10 · 2^-23, 1.2e-6"
    )
    """Smallest rise of a loss that counts, and smallest start of one that must fall."""
    rise_of_start_min: float = limit(
        0.01, unit="1", source="stabmon's choice: half of what a lasting rise must be as a share of the fall"
    )
    """Smallest distance of a spike from the usual loss, as a share of the loss at the run's start."""
    rise_max: float = limit(
        1.2, unit="1", source="measured: a run that goes well is never a fifth above its best for a block of samples"
    )
    """Median loss of the last ``lasting`` samples over the best such median before."""
    rise_of_learnt_min: float = limit(
        0.02, unit="1", source="measured: medians of a speech loss that had fallen from 28 to 0.08 vary by 0.02"
    )
    """Rise of that median over the best as a share of the fall from the run's start to the best."""
    lasting: int = limit(16, unit="samples", source="stabmon's choice: longer than any isolated spike")
    """Samples for which a loss must have stayed up, or in which a plateau is looked for."""
    plateau_samples: int = limit(
        150, unit="samples", source="measured: every healthy run of 160 steps had halved its loss by then, or nearly"
    )
    """Samples after which a loss must have fallen."""
    plateau_share_min: float = limit(
        0.98, unit="1", source="measured: 0.03 to 0.55 in healthy runs, 0.94 at a learning rate 200 times too low"
    )
    """Share of its start above which a loss has not fallen."""


class NumericLimits(FamilyLimits):
    """Limits of the numeric rules, NUM: a number is finite or it is not, so there is little to set."""

    scaler_samples_max: int = limit(
        10, unit="samples", source="stabmon's choice: 2^10 from torch's initial loss scale, 65536"
    )
    """Samples in a row in which gradients alone may be infinite while a GradScaler looks for its scale."""
    norm_input_min: float = limit(
        1, unit="1", source="by arithmetic: an input whose mean square is eps leaves the norm at 0.71 of its size"
    )
    """Mean square of a norm's input over the norm's eps."""
    fp16_rms_max: float = limit(
        2000,
        unit="1",
        source="by arithmetic: fp16 ends at 65504, 33 times that; some channels reach 30 times the rms",
    )
    """Rms of a block's output in an fp16 run."""


class ConfigurationLimits(FamilyLimits):
    """Limits of the configuration rules, CFG."""

    bias_length_factor_max: float = limit(
        4, unit="1", source="measured: twin ratio healthy from 0.3 to 3; 51 at b = -3, n = 1024"
    )
    """Factor by which exp(b)·n may differ from 1, either way."""
    longer_factor_max: float = limit(
        1.5, unit="1", source="arXiv 2501.13428: the loss had doubled at twice the length; below, stabmon's choice"
    )
    """Largest ratio of an evaluation's length to the training's."""
    first_steps: int = limit(20, unit="steps", source="stabmon's choice: before warm-up has moved a weight far")
    """Steps that count as the start of a run."""


class BehaviourLimits(FamilyLimits):
    """Limits of the rules about the training beside its softmax twin, BEH."""

    gap_min: float = limit(
        0.05, unit="nats", source="measured: replicates of one configuration end within 0.05 nats of one another"
    )
    """Nats that sigmoid is behind softmax, at the lower end of the interval."""


class UpdateLimits(FamilyLimits):
    """Limits of the rules about the updates of the weights, UPD."""

    stream_jump_max: float = limit(
        2.5,
        unit="1",
        source="measured without warm-up: 3.8, 24 and 153 at learning rates 10, 30 and 100 times a healthy one; "
        "1.2 to 1.6 in healthy runs, with and without warm-up",
    )
    """Rms of a block's output over that of the step before."""
    jumped_stream_min: float = limit(
        3, unit="1", source="measured: 3.2 and more where it jumped; embeddings drawn at 0.02 make any start small"
    )
    """Rms of a block's output from which a jump counts."""
    first_steps: int = limit(20, unit="steps", source="stabmon's choice: shorter than any warm-up in use")
    """Steps that count as the start of a run, in which a warm-up would keep the updates small."""
    full_rate_share: float = limit(0.5, unit="1", source="stabmon's choice: half the rate is no warm-up")
    """Share of the largest learning rate so far that the first step must have had for a run without warm-up."""
    stream_growth_max: float = limit(
        32,
        unit="1",
        source="measured: 2 to 20 in healthy runs of 160 steps, 53 to 1,800 at learning rates too high for the model",
    )
    """Rms of a block's output over that at the first sample."""
    harmful_stream_growth_min: float = limit(
        300,
        unit="1",
        source="measured: up to 150 at high learning rates in runs that ended well, 700 and more in those that did not",
    )
    """The same, from which it is a warning."""
    grown_stream_min: float = limit(
        10, unit="1", source="measured: 1 to 6 in healthy runs, 20 in the highest of them; embeddings differ in size"
    )
    """Rms of a block's output from which growth counts."""
    early_steps: int = limit(
        300, unit="steps", source="measured: a rate that is too high shows within 20 steps; in long runs streams grow"
    )
    """Steps in which growth of the stream is attributed to the learning rate."""
    confirmations: int = limit(3, unit="samples", source="trainscope 1.8.1 requires three steps")
    """Consecutive samples that must agree before a finding opens."""
