"""Memory, barriers, copies and products of one program, as its warp groups see them.

What is asynchronous on the GPU happens as late as it may: a product reads its shared tiles when it is waited for, a
store when its group is, so that a buffer released too early is seen to be overwritten. A load lands when somebody has
waited for its barrier; until then its tile holds NaN and no product may read it.
"""

import math
import re
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

PATIENCE = 5.0
"""Seconds after which a wait is called a deadlock."""
HASTE = 2e-4
"""Seconds by which a warp group falls behind after it released a buffer, so that others get to reuse it."""
_memory = threading.Lock()


class Tile:
    """A distributed tensor: values and the layout they were given."""

    def __init__(self, values: Tensor, layout: Any = None) -> None:
        self.values, self.layout = values, layout

    shape = property(lambda self: list(self.values.shape))
    type = property(lambda self: self)

    def to(self, dtype: torch.dtype) -> "Tile":
        return Tile(self.values.to(dtype), self.layout)

    def reshape(self, shape: list[int]) -> "Tile":
        return Tile(self.values.reshape(shape), self.layout)

    def __getitem__(self, key: Any) -> "Tile":
        return Tile(self.values[key], self.layout)


def _operator(name: str) -> Callable[..., Tile]:
    def apply(self: Tile, other: Any) -> Tile:
        return Tile(getattr(self.values, name)(bare(other)), self.layout)

    return apply


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "le", "lt", "ge", "gt", "and"):
    setattr(Tile, f"__{_name}__", _operator(f"__{_name}__"))


def bare(value: Any) -> Any:
    return value.values if isinstance(value, Tile) else value


class Shared:
    """A view of shared memory."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.dtype = values, values.dtype

    def index(self, i: int) -> "Shared":
        assert 0 <= i < self.values.shape[0]
        return Shared(self.values[i])

    def reshape(self, shape: list[int]) -> "Shared":
        return Shared(self.values.view(shape))

    def permute(self, order: tuple[int, ...]) -> "Shared":
        return Shared(self.values.permute(order))

    def slice(self, start: int, length: int, dim: int) -> "Shared":
        assert start + length <= self.values.shape[dim]
        return Shared(self.values.narrow(dim, start, length))

    shape = property(lambda self: list(self.values.shape))

    def overlaps(self, other: "Shared") -> bool:
        """Return whether the two span common bytes."""
        (a, b), (c, d) = self._span(), other._span()
        return a < d and c < b

    def _span(self) -> tuple[int, int]:
        steps = zip(self.values.shape, self.values.stride(), strict=True)
        last = sum((size - 1) * step for size, step in steps) + 1
        start = self.values.data_ptr()
        return start, start + last * self.values.element_size()

    def store(self, tile: Tile) -> None:
        """Write a tile."""
        assert tile.values.dtype == self.dtype
        assert not any(self.overlaps(source) for *_, source in program.own("stores")), "a store still reads it"
        assert not any(product.reads(self) for product in tuple(program.products)), "a product still reads it"
        self.values.copy_(tile.values)


class Barrier:
    """An mbarrier: a phase ends when all arrivals and all expected bytes are in."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.phase = self.count = self.pending = self.bytes = 0

    def init(self, count: int) -> None:
        self.count = self.pending = count

    def arrive(self, arrivals: int, expected: int) -> None:
        with self.changed:
            assert self.count, "barrier is not initialised"
            self.pending -= arrivals
            self.bytes += expected
            assert self.pending >= 0, "more arrivals than the barrier was made for"
            if self.pending == 0 and self.bytes == 0:
                self.phase, self.pending = self.phase + 1, self.count
                self.changed.notify_all()

    def wait(self, parity: int) -> None:
        assert parity in (0, 1)
        with self.changed:
            if not self.changed.wait_for(lambda: self.phase & 1 != parity, PATIENCE):
                raise TimeoutError("deadlock: a barrier's phase never ends")
            for flight in tuple(program.flights):
                if flight.barrier is self and flight.phase < self.phase:
                    flight.shared.values.copy_(flight.values)
                    program.flights.remove(flight)


class Flight(NamedTuple):
    """A load that has not landed: what it will write, and the phase of its barrier that it belongs to."""

    barrier: Barrier
    phase: int
    shared: Shared
    values: Tensor


class NamedBarrier:
    """A hardware barrier of two warp groups, one of which only arrives."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.arrived = 0

    def arrive(self) -> None:
        with self.changed:
            self.arrived += 1
            assert self.arrived == 1, "a second arrival before the first was waited for"
            self.changed.notify_all()

    def sync(self) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.arrived, PATIENCE):
                raise TimeoutError("deadlock: nobody arrives at a named barrier")
            self.arrived = 0


class Descriptor:
    """A TMA descriptor over a whole tensor: loads 0 and stores nothing outside it."""

    def __init__(self, base: Tensor, block: list[int]) -> None:
        self.base, self.dtype, self.layout = base, base.dtype, None
        self.block_type = SimpleNamespace(shape=block, nbytes=math.prod(block) * base.element_size())

    def cut(self, at: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the part of the tensor that a block covers, and where in the block it lies."""
        spans = list(zip(at, self.block_type.shape, self.base.shape, strict=True))
        inside = tuple(slice(max(a, 0), max(min(a + b, n), 0, a)) for a, b, n in spans)
        return inside, tuple(slice(i.start - a, i.stop - a) for i, a in zip(inside, at, strict=True))


class Pointer:
    """A pointer into a contiguous tensor."""

    def __init__(self, base: Tensor, offset: int = 0) -> None:
        self.base, self.offset = base.view(-1) if base.is_contiguous() else base, offset

    def __add__(self, steps: int) -> "Pointer":
        return Pointer(self.base, self.offset + steps)


class Product:
    """A product in flight."""

    def __init__(self, a: Any, b: Shared, acc: Any, use_acc: bool) -> None:
        self.a, self.b, self.acc, self.use_acc = a, b, acc, use_acc
        self.done: Tile | None = None

    def reads(self, shared: Shared) -> bool:
        """Return whether an operand lies in the storage of ``shared``."""
        return any(isinstance(x, Shared) and x.overlaps(shared) for x in (self.a, self.b))

    def finish(self) -> None:
        """Compute it."""
        product = self.a.values.float() @ self.b.values.float()
        acc = self.acc.done if isinstance(self.acc, Product) else self.acc
        self.done = Tile(acc.values + product if self.use_acc else product, acc.layout)


class Program:
    """A program's index in the grid, and the work in flight of its warp groups."""

    def __init__(self) -> None:
        self.index = self.count = 0
        self.products: list[Product] = []
        self.flights: list[Flight] = []
        self.named: list[NamedBarrier] = []
        self._own = threading.local()

    def own(self, kind: str) -> list[Any]:
        """Return the calling warp group's own list of ``kind``."""
        if not hasattr(self._own, kind):
            setattr(self._own, kind, [])
        found: list[Any] = getattr(self._own, kind)
        return found


program = Program()


def load(descriptor: Descriptor, at: list[int], barrier: Barrier, shared: Shared) -> None:
    """Start a TMA load."""
    assert not any(product.reads(shared) for product in tuple(program.products)), (
        "a tile is overwritten while it is read"
    )
    inside, where = descriptor.cut(at)
    values = torch.zeros_like(shared.values)
    values[where] = descriptor.base[inside]
    shared.values.fill_(torch.nan)
    with barrier.changed:
        program.flights.append(Flight(barrier, barrier.phase, shared, values))
    barrier.arrive(0, -descriptor.block_type.nbytes)


def store(descriptor: Descriptor, at: list[int], shared: Shared) -> None:
    """Start a TMA store; one that begins before its tensor is an illegal instruction on the GPU."""
    assert min(at) >= 0, "a store begins before its tensor"
    program.own("stores").append((descriptor, at, False, shared))


def add(descriptor: Descriptor, at: list[int], shared: Shared) -> None:
    """Start a TMA store that adds."""
    assert min(at) >= 0, "a store begins before its tensor"
    program.own("stores").append((descriptor, at, True, shared))


def store_wait(pending: int) -> None:
    """Carry out all but the newest ``pending`` stores of this warp group."""
    stores = program.own("stores")
    while len(stores) > pending:
        descriptor, at, adds, shared = stores.pop(0)
        inside, where = descriptor.cut(at)
        with _memory:
            before = descriptor.base[inside] if adds else 0
            descriptor.base[inside] = shared.values[where] + before


def arrive(barrier: Barrier, *, count: int) -> None:
    """Arrive, and fall behind."""
    barrier.arrive(count, 0)
    time.sleep(HASTE)


def ping_pong(text: str) -> None:
    """Carry out ``bar.sync`` or ``bar.arrive`` between two warp groups."""
    found = re.match(r"bar\.(sync|arrive) (\d+), 256;", text)
    assert found, text
    barrier = program.named[int(found[2])]
    if found[1] == "sync":
        barrier.sync()
    else:
        barrier.arrive()


def multiply(a: Any, b: Shared, acc: Any, *, use_acc: bool = True, is_async: bool) -> Product:
    """Start a product."""
    assert is_async
    assert a.values.dtype == b.dtype
    product = Product(a, b, acc, use_acc)
    assert not any(product.reads(flight.shared) for flight in tuple(program.flights)), (
        "a product reads a tile that is not waited for"
    )
    program.own("products").append(product)
    program.products.append(product)
    return product


def multiply_wait(outstanding: int, deps: tuple[Product, ...]) -> Any:
    """Finish all but the newest ``outstanding`` products of this warp group."""
    flying = program.own("products")
    while len(flying) > outstanding:
        product = flying.pop(0)
        product.finish()
        program.products.remove(product)
    results = [dep.done for dep in deps]
    assert None not in results, "a product is used before it is waited for"
    return results[0] if len(results) == 1 else tuple(results)


def specialise(
    parts: list[tuple[Callable[..., None], tuple[Any, ...]]], warps: list[int], registers: list[int]
) -> None:
    """Run each (function, arguments) as a warp group."""
    assert len(parts) == len(warps) + 1 == len(registers) + 1
    program.named = [NamedBarrier() for _ in range(16)]
    failures: list[BaseException] = []

    def work(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
            assert not program.own("stores"), "a store is not waited for"
            assert not program.own("products"), "a product is not waited for"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=part, daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
