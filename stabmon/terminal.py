"""Printing for people and as JSON: nothing in a run's or a user's text is taken for markup or obeyed by a terminal."""

import json
from collections.abc import Iterable
from io import StringIO
from typing import Any

from pydantic_core import to_json
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from stabmon.errors import StabmonError


def plain(text: str) -> str:
    """Return ``text`` with every character that is no printable one, but line ends, written as Python escapes it.

    Control characters move the cursor, recolour or retitle a terminal; direction marks show text in another order.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def json_text(value: Any) -> str:
    """Return ``value``, records included, as JSON of ASCII letters; NaN and infinities as the records write them."""
    return json.dumps(json.loads(to_json(value, inf_nan_mode="strings")), indent=2, allow_nan=False)


def print_json(value: Any) -> None:
    """Print ``value``, records included, to standard output as ``json_text`` writes it."""
    Terminal().print(json_text(value), soft_wrap=True)


def text_of(renderable: RenderableType) -> str:
    """Return what a ``Terminal`` of 120 columns without colours prints of ``renderable``."""
    text = StringIO()
    Terminal(file=text, width=120, no_color=True).print(renderable)
    return text.getvalue()


class OutputError(StabmonError, RuntimeError):
    """Output that cannot be written."""


class Terminal(Console):
    """rich's console without markup or emoji codes, whose styles are its own and never come out of a text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed, each text ``plain``."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as rich's console does.

        Raises:
            OutputError: the stream takes no more: the disk is full, the file is closed.
            BrokenPipeError: its reader has gone.
        """
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = "standard error" if self.stderr else "standard output"
            raise OutputError(f"cannot write to {where}: {error.strerror or error}") from error

    def on_broken_pipe(self) -> None:
        """Raise the ``BrokenPipeError`` that is being handled; rich would point the process's stdout elsewhere."""
        raise
