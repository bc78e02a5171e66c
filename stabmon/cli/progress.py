"""A progress bar for a training: steps done, loss, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stabmon.terminal import Terminal


@contextmanager
def training_bar(name: str, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar on standard error while the block runs; yield a function that takes the steps done and the loss."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Terminal(stderr=True)) as progress:
        task = progress.add_task(name, total=steps, loss=float("nan"))

        def step(done: int, loss: float) -> None:
            progress.update(task, completed=done, loss=loss)

        yield step
