"""Interleaved timing, so that a drifting clock meets all contenders alike: medians over many rounds of short batches.

In each round every contender runs one batch of calls, in a new random order. ``medians`` times the device,
``host_medians`` the host. Only ratios within one such run hold: clocks, power and temperature change between two.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

Calls = Mapping[str, Callable[[], object]]

ROUNDS = 30
"""Rounds of a run."""
BATCH = 4.0
"""Milliseconds of device time of one batch, at least one call."""
HOST_CALLS = 50
"""Calls of one batch on the host's clock: few enough to fit the queue of launches."""
CLEARED = 256 * 2**20
"""Bytes that are written before each call on the device's clock: more than any second-level cache holds."""


class Stopwatch:
    """Times calls on the current CUDA device; nothing waits for the device before ``wait``.

    So the host stays ahead of the device, and its time does not show where a call takes longer on the device.
    """

    def __init__(self) -> None:
        self._cache = torch.empty(CLEARED, dtype=torch.int8, device="cuda")

    def lap(self, call: Callable[[], object]) -> Callable[[], float]:
        """Clear the second-level cache, run ``call``; return what reads its milliseconds once ``wait`` is over."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._cache.zero_()
        start.record()
        call()
        end.record()
        return partial(start.elapsed_time, end)

    def wait(self) -> None:
        """Wait for all laps."""
        torch.cuda.synchronize()


def medians(calls: Calls, rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median milliseconds of each of ``calls`` on the current CUDA device."""
    stopwatch = Stopwatch()
    repeats = {name: _repeats(stopwatch, call) for name, call in calls.items()}
    laps: dict[str, list[Callable[[], float]]] = {name: [] for name in calls}
    for name in interleaved(calls, rounds):
        laps[name] += [stopwatch.lap(calls[name]) for _ in range(repeats[name])]
    stopwatch.wait()
    return {name: statistics.median(lap() for lap in of_name) for name, of_name in laps.items()}


def host_medians(calls: Calls, rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median microseconds that the host takes for each of ``calls``; before a batch the queue is empty.

    A call must take less time on the device than on the host.
    """
    for call in calls.values():
        _host_microseconds(call)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for name in interleaved(calls, rounds):
        found[name].append(_host_microseconds(calls[name]))
    return {name: statistics.median(times) for name, times in found.items()}


def interleaved(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Yield every name once a round, each round in an order of its own; the orders repeat from run to run."""
    drawn = random.Random(0)
    order = list(names)
    for _ in range(rounds):
        drawn.shuffle(order)
        yield from order


def machine() -> dict[str, Any]:
    """Return on what was measured: device and versions."""
    import triton

    return {
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
    }


def _repeats(stopwatch: Stopwatch, call: Callable[[], object]) -> int:
    """Return how many calls fill a batch; the first compiles and finds its tables."""
    call()
    laps = [stopwatch.lap(call) for _ in range(3)]
    stopwatch.wait()
    return max(1, round(BATCH / min(lap() for lap in laps)))


def _host_microseconds(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(HOST_CALLS):
        call()
    return 1e6 * (time.perf_counter() - start) / HOST_CALLS
