"""Runs each command once for each state of standard output, in forks of one process, and prints the exit codes."""

import json
import os
import sys
import traceback
from pathlib import Path

import rich.progress
import rich.table  # noqa: F401

import stabmon.ab_test
import stabmon.preflight_check
import stabmon.sinks
import stabmon.workloads  # noqa: F401  # what the commands import, once for all forks
from stabmon.cli import main

STATES = ("closed", "full", "no reader", "latin-1")


def fork(arguments: list[str], state: str, folder: Path) -> dict[str, object]:
    """Run one command in a fork and return its exit code and what it wrote to standard error."""
    errors = folder / "errors"
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            put(state, folder)
            sys.argv = ["stabmon", *arguments]
            main()
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(99)
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "errors": errors.read_text(errors="replace")}


def put(state: str, folder: Path) -> None:
    """Bring standard output into the state that a new process would find."""
    if state == "closed":
        os.close(1)
        sys.stdout = None  # type: ignore[assignment]  # as the interpreter sets it when it starts without one
        return
    if state == "full":
        target = os.open("/dev/full", os.O_WRONLY)
    elif state == "no reader":
        reader, target = os.pipe()
        os.close(reader)
    else:
        target = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    if state == "latin-1":
        assert sys.stdout is not None
        sys.stdout.reconfigure(encoding="latin-1", errors="strict")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    commands: dict[str, list[str]] = json.loads(sys.argv[2])
    print(json.dumps({name: {state: fork(call, state, place) for state in STATES} for name, call in commands.items()}))
