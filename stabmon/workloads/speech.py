"""A speech encoder with sigmoid or softmax attention, trained with CTC to name the speakers of recorded vowels.

Sequences differ in length, so every attention gets the number of its valid keys.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.config import ModelConfig, RunConfig
from stabmon.nn import RMSNorm
from stabmon.workloads.blocks import blocks
from stabmon.workloads.spoken_vowels import COEFFICIENTS, SPEAKERS, Recordings, sequence, vowels
from stabmon.workloads.workload import Batch

EXTREME = 1e3
"""Standard deviation of a corrupt recording's coefficients, which are of order one in a good one."""
VALIDATION = (8, 4)
"""Batches of a validation pass, and sequences in each."""
UNIT = "nats a label"


class SpeechEncoder(nn.Module):
    """Transformer over frames of speech: embedding, positions, blocks, norm, head over blank (0) and nine speakers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.context = config.context
        self.embedding = nn.Linear(COEFFICIENTS, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.layers = blocks(config, config.context)
        self.norm = RMSNorm(config.width)
        self.head = nn.Linear(config.width, 1 + SPEAKERS)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits [B, N, 10] of ``frames`` [B, N, 12], of which the first ``lengths`` [B] are valid.

        Raises:
            ValueError: N is above the context and positions are learned.
        """
        x: Tensor = self.embedding(frames)
        if self.positions is not None:
            if frames.shape[1] > self.context:
                raise ValueError(
                    f"learned positions end at {self.context}, got {frames.shape[1]} frames; cut the input"
                )
            x = x + self.positions.weight[: frames.shape[1]]
        for layer in self.layers:
            x = layer(x, lengths)
        logits: Tensor = self.head(self.norm(x))
        return logits


def build(config: ModelConfig) -> SpeechEncoder:
    """Return the model of ``config``."""
    return SpeechEncoder(config)


def batches(config: RunConfig) -> Iterator[Batch]:
    """Yield sequences of turns, as ``collated``, between half the context and all of it."""
    generator = torch.Generator().manual_seed(config.training.seed)
    recordings = vowels().train
    while True:
        yield collated(recordings, config.training.batch, config.model.context, generator)


def validation(config: RunConfig, length: int) -> Iterator[Batch]:
    """Yield 32 sequences of turns up to ``length``, from recordings that training never sees."""
    generator = torch.Generator().manual_seed(0)
    number, batch = VALIDATION
    for _ in range(number):
        yield collated(vowels().valid, batch, length, generator)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean over sequences of the CTC loss over the number of turns, in nats."""
    transcripts, turns = batch.targets
    likely = model(*batch.inputs).float().log_softmax(-1).transpose(0, 1)
    frames, labels = torch.stack((batch.inputs[1], turns)).cpu()  # ctc_loss reads both on the host: one wait, not four
    losses = functional.ctc_loss(likely, transcripts, frames, labels, reduction="none")
    return (losses / turns).mean()


def corrupt(batch: Batch, generator: torch.Generator) -> Batch:
    """Return noise with a thousand times the amplitude of speech, and random speakers."""
    (frames, lengths), (transcripts, turns) = batch
    noise = EXTREME * torch.randn(frames.shape, generator=generator)
    speakers = torch.randint(1, 1 + SPEAKERS, transcripts.shape, generator=generator)
    return Batch((noise, lengths), (speakers, turns))


def collated(recordings: Recordings, batch: int, longest: int, generator: torch.Generator) -> Batch:
    """Return sequences, padded on the right, and their transcripts.

    Inputs: frames [batch, longest, 12] and lengths [batch]; targets: speakers [batch, most turns] and turns [batch].
    """
    drawn = [sequence(recordings, longest, generator) for _ in range(batch)]
    lengths, turns = (torch.tensor([len(each[part]) for each in drawn]) for part in (0, 1))
    frames = torch.stack([functional.pad(each.frames, (0, 0, 0, longest - len(each.frames))) for each in drawn])
    transcripts = nn.utils.rnn.pad_sequence([each.transcript for each in drawn], batch_first=True)
    return Batch((frames, lengths), (transcripts, turns))
