"""A progress bar for a training: steps done, loss, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stabmon.terminal import Terminal


@contextmanager
def training_bar(console: Terminal, name: str, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar while the block runs and give it a function that takes the steps done and the loss."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=steps, loss=float("nan"))

        def step(done: int, loss: float) -> None:
            progress.update(task, completed=done, loss=loss)

        yield step
