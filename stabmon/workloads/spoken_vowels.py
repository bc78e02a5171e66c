"""Real recorded speech that a package ships: nine men saying the vowels /ae/, strung together into turns.

sktime ships the UCI collection "Japanese Vowels" (Kudo, Toyama, Shimbo, 1999): 640 recordings of 7 to 29 frames, each
with 12 cepstrum coefficients from linear prediction, and the speaker's number. They are real; that they follow
one another is ours: a sequence is turns of random speakers, nobody twice in a row; its transcript names
them in order.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from stabmon.errors import ConfigError

COEFFICIENTS = 12
SPEAKERS = 9
SHORTEST = 0.5
"""Length of the shortest sequence, as a share of the longest."""


class Recordings(NamedTuple):
    """frames: per recording [length, 12] float32; over the training part a coefficient has mean 0 and deviation 1.

    speakers: [number] int64, 1 to 9.
    """

    frames: tuple[Tensor, ...]
    speakers: Tensor


class Speech(NamedTuple):
    """The collection's own parts: 270 recordings to train on, 370 that training never sees."""

    train: Recordings
    valid: Recordings


class Sequence(NamedTuple):
    """frames: [length, 12]; transcript: [turns] int64, the speakers in order."""

    frames: Tensor
    transcript: Tensor


@lru_cache(maxsize=1)
def vowels() -> Speech:
    """Return the recordings.

    Raises:
        ConfigError: sktime is not installed.
    """
    train, valid = _read("train"), _read("test")
    together = torch.cat(train.frames)
    mean, deviation = together.mean(0), together.std(0)
    return Speech(
        *(
            Recordings(tuple((frames - mean) / deviation for frames in part.frames), part.speakers)
            for part in (train, valid)
        )
    )


def sequence(recordings: Recordings, longest: int, generator: torch.Generator) -> Sequence:
    """Return turns of random speakers, of any length between half of ``longest`` frames and ``longest``.

    Raises:
        ConfigError: ``longest`` holds no recording.
    """
    wanted = int(longest * (SHORTEST + (1 - SHORTEST) * torch.rand((), generator=generator).item()))
    frames: list[Tensor] = []
    turns: list[int] = []
    room = wanted
    for index in torch.randint(len(recordings.frames), (wanted,), generator=generator).tolist():
        taken, speaker = recordings.frames[index], int(recordings.speakers[index])
        if len(taken) > room:
            break
        if turns[-1:] != [speaker]:
            frames.append(taken)
            turns.append(speaker)
            room -= len(taken)
    if not turns:
        raise ConfigError(f"a sequence needs room for a turn of up to 29 frames, got {longest}; raise model.context")
    return Sequence(torch.cat(frames), torch.tensor(turns))


def _read(part: str) -> Recordings:
    try:
        from sktime.datasets import load_japanese_vowels
    except ImportError as error:
        raise ConfigError(
            f"the speech workload reads sktime's Japanese Vowels, and sktime cannot be imported ({error}); "
            "pip install 'stabmon[workloads]'"
        ) from error
    table, speakers = load_japanese_vowels(split=part)
    frames = tuple(
        torch.tensor([coefficient.to_list() for coefficient in row], dtype=torch.float32).T.contiguous()
        for row in table.itertuples(index=False)
    )
    return Recordings(frames, torch.tensor([int(speaker) for speaker in speakers]))
