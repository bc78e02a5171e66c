"""A user's own rules, read from a Python file that registers them with ``@stabmon.rules.rule``."""

import runpy
import traceback
from collections.abc import Iterable
from pathlib import Path

from stabmon.errors import ConfigError
from stabmon.rules.registry import Rule, collected


def load(*paths: str | Path) -> tuple[Rule, ...]:
    """Run Python files and return the rules that they register, in the order of the codes.

    They join the catalogue only where they are passed on (``Engine(rules=...)``, ``watch(rules=...)``).

    Raises:
        ConfigError: a file cannot be read or run, registers no rule, or registers a wrong one.
    """
    with collected() as found:
        for path in paths:
            before = len(found)
            _run(Path(path))
            if len(found) == before:
                raise ConfigError(f"{path} registers no rule; decorate a function with @stabmon.rules.rule(...)")
    return tuple(found[code] for code in sorted(found))


def resolve(rules: str | Path | Iterable[str | Path | Rule]) -> tuple[Rule, ...]:
    """Return rules given as files, as ``Rule`` objects, or as a mixture.

    Raises:
        ConfigError: as ``load``.
    """
    given = [rules] if isinstance(rules, str | Path) else list(rules)
    ready = tuple(rule for rule in given if isinstance(rule, Rule))
    return ready + load(*(rule for rule in given if not isinstance(rule, Rule)))


def _run(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"cannot read the rules {path}: there is no such file; give a Python file")
    try:
        runpy.run_path(str(path))
    except Exception as error:  # the file is the user's own: any error in it is reported with its line
        raise ConfigError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
