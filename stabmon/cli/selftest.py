"""``stabmon selftest``: whether stabmon works on this machine."""

from typing import Annotated

import typer
from rich.text import Text

from stabmon.terminal import Terminal, print_json


def selftest(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check stabmon on this machine in less than a minute; the exit code is 1 where a check fails.

    Kernels against float64, fused ones where there is a GPU; the store written, read, killed and damaged; a training
    with the same bits, generators and hooks with and without the monitor; a bad start flagged, a good one passed.
    """
    from stabmon.selftest import check, kernels, run_all, store, training

    checks = (
        ("eager kernels", kernels.eager),
        ("triton kernels", kernels.triton),
        ("hopper kernels", kernels.hopper),
        ("store, written and read", store.written),
        ("store, writer killed", store.killed),
        ("store, damaged", store.damaged),
        ("training, same bits", training.same_bits),
        ("training, process unchanged", training.process_unchanged),
        ("preflight", training.preflight_flags_only_the_bad_start),
    )
    styles = {check.Status.PASSED: "green", check.Status.FAILED: "bold red", check.Status.SKIPPED: "dim"}
    results = []
    for result in run_all(checks):
        results.append(result)
        if not as_json:
            line = Text.assemble((f"{result.status:8}", styles[result.status]), f"{result.check}: {result.detail}")
            Terminal().print(line, soft_wrap=True)
    if as_json:
        print_json(results)
    if any(result.status is check.Status.FAILED for result in results):
        raise typer.Exit(1)
