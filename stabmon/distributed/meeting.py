"""The agreement of all processes that each of them watches the model: through the store, with a bounded wait.

No collective of the training's groups is used: a process that does not call ``watch`` would never join it. Each process
leaves a message in the store of the default group; whoever has waited too long, or has seen all messages, writes the
decision, once for all.
"""

from datetime import timedelta
from typing import Any

from torch import distributed

from stabmon.distributed.process import is_initialised, processes, rank

PATIENCE = 30.0
"""Seconds that a process waits for the others, once or twice in a training."""

_next = 0
"""Number of the next meeting in this process."""


class Meeting:
    """The processes of one ``watch``; where torch.distributed is not initialised yet, they meet later.

    refusal: the reason that they do not record together, or None.
    """

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.rank, self.size = 0, 1
        self._store: Any = None
        self._agreed: bool | None = None
        self._join()

    @property
    def store(self) -> Any:
        """A connection of its own to the store, so that no wait of ours holds up another of the training."""
        return self._store

    @property
    def expected(self) -> bool:
        """There are other processes."""
        return processes() > 1

    def together(self) -> bool:
        """Return whether every process watches; waits for them the first time, at most ``PATIENCE`` s."""
        self._join()
        if self._agreed is None and self._store is not None:
            self._agreed = self._all("here") is not None
        return bool(self._agreed)

    def exchange(self, message: str) -> list[str] | None:
        """Return the messages of all processes, or None where not all have left one after ``PATIENCE`` s."""
        if not self.together():
            return None
        self._store.set(f"own/{self.rank}", message)
        return self._all("own")

    def _join(self) -> None:
        """Leave word that this process watches, as soon as there is a process group."""
        if self._store is not None or self.refusal is not None or not is_initialised() or processes() == 1:
            return
        try:
            if not distributed.is_gloo_available():
                raise RuntimeError("this PyTorch has no gloo")
            self._store = _store_of_next()
            self.rank, self.size = rank(), processes()
            self._store.set(f"here/{self.rank}", "")
        except Exception as error:  # a store of another kind, or one that has gone
            self._store, self.refusal = None, f"the process group's store cannot be used: {error}"

    def _all(self, kind: str) -> list[str] | None:
        """Return every process's message of one kind, unless one of them came to the decision not to wait longer."""
        keys = [f"{kind}/{each}" for each in range(self.size)]
        try:
            decision = "all" if self._wait(keys) else "not all"
            if self._store.compare_set(f"{kind}/decision", "", decision).decode() == "all":
                return [self._store.get(key).decode() for key in keys]
            missing = [str(each) for each, key in enumerate(keys) if not self._store.check([key])]
            which = f"rank{'s' * (len(missing) > 1)} {', '.join(missing[:8])}" if missing else "another rank"
            what = "called watch" if kind == "here" else "ended a step"
            self.refusal = f"{which} had not {what} {PATIENCE:.0f} s after the others"
        except Exception as error:
            self.refusal = f"the process group's store cannot be used: {error}"
        return None

    def _wait(self, keys: list[str]) -> bool:
        try:
            self._store.wait(keys, timedelta(seconds=PATIENCE))
        except Exception:  # each kind of store has its own for a wait that ended
            return bool(self._store.check(keys))
        return True


def _store_of_next() -> Any:
    """Return the store of the next meeting: one that was given up without this process is over."""
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    global _next
    whole: Any = _get_default_store()
    own = whole.clone()
    while True:
        store = PrefixStore(f"stabmon/{_next}", own)
        _next += 1
        if not (store.check(["here/decision"]) and store.get("here/decision") == b"not all"):
            return store
