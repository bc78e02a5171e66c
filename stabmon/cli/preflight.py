"""``stabmon preflight``: whether a run starts healthy."""

from typing import Annotated

import typer

from stabmon.records import Severity
from stabmon.terminal import Terminal, print_json


def preflight(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a documented run such as naive.")],
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Lengths to look at too: 256:16384 (by doubling), or 512,1000.")
    ] = None,
    jacobian: Annotated[bool, typer.Option("--jacobian", help="Bound the Jacobian of each layer too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a run at step 0 with one forward pass; the exit code is 1 where a finding is an error."""
    from stabmon import config as configuration
    from stabmon.preflight_check import preflight as check
    from stabmon.preflight_check.sweep import lengths_of
    from stabmon.workloads import training

    loaded = configuration.load(config)
    device = training.pick_device(device)
    inputs, _ = next(iter(training.batches(loaded, device)))
    report = check(
        training.build(loaded, device),
        inputs,
        config=loaded.model_dump(mode="json"),
        lengths=lengths_of(lengths) if lengths else (),
        jacobian=jacobian,
    )
    if as_json:
        print_json(report)
    else:
        Terminal().print(report)
    if any(finding.severity is Severity.ERROR for finding in report.findings):
        raise typer.Exit(1)
