"""``stabmon preflight``: whether a run, or any model, starts healthy."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stabmon.records import Severity
from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from torch import nn

    from stabmon.batch import Batch


def preflight(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A YAML file, the name of a documented run such as naive, or package.module:build, a function that "
            "returns a model.",
        ),
    ],
    batch: Annotated[
        str | None,
        typer.Option(help="package.module:batch, a function that returns the arguments of the model of build."),
    ] = None,
    as_sigmoid: Annotated[
        bool, typer.Option("--as-sigmoid", help="Look at a softmax model as it would be with sigmoid attention.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Lengths to look at too: 256:16384 (by doubling), or 512,1000.")
    ] = None,
    jacobian: Annotated[bool, typer.Option("--jacobian", help="Bound the Jacobian of each layer too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a run or a model at step 0 with one forward pass; the exit code is 1 where a finding is an error."""
    from stabmon.preflight_check import preflight as check
    from stabmon.preflight_check.sweep import lengths_of

    model, inputs, config = _foreign(run, batch, device) if ":" in run else _documented(run, batch, device)
    report = check(
        model,
        inputs,
        config=config,
        lengths=lengths_of(lengths) if lengths else (),
        jacobian=jacobian,
        as_sigmoid=as_sigmoid,
    )
    if as_json:
        print_json(report)
    else:
        Terminal().print(report)
    if any(finding.severity is Severity.ERROR for finding in report.findings):
        raise typer.Exit(1)


def _documented(run: str, batch: str | None, device: str | None) -> "tuple[nn.Module, Batch, dict[str, Any] | None]":
    """Return the model of a configuration, a batch of its data, and the configuration."""
    from stabmon import config as configuration
    from stabmon.workloads import training

    if batch is not None:
        raise typer.BadParameter("--batch goes with package.module:build; a documented run brings its own data")
    loaded = configuration.load(run)
    device = training.pick_device(device)
    inputs, _ = next(iter(training.batches(loaded, device)))
    return training.build(loaded, device), inputs, loaded.model_dump(mode="json")


def _foreign(run: str, batch: str | None, device: str | None) -> "tuple[nn.Module, Batch, dict[str, Any] | None]":
    """Return what the user's functions return, the model on ``device`` and the batch where the model is."""
    from torch import Tensor, nn
    from torch.utils._pytree import tree_map

    from stabmon.workloads import training

    if batch is None:
        raise typer.BadParameter("a model needs a batch: pass --batch package.module:batch, a function that returns it")
    model, inputs = _called(run), _called(batch)
    if not isinstance(model, nn.Module):
        raise typer.BadParameter(f"{run} must return a torch.nn.Module, got {type(model).__name__}")
    place = training.pick_device(device)
    given = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return model.to(place), tree_map(lambda one: one.to(place) if isinstance(one, Tensor) else one, given), None


def _called(path: str) -> Any:
    """Return what the function ``package.module:name`` returns; modules in the working folder are found too."""
    module, _, name = path.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{path} must be package.module:function, and importing it failed: {error}") from None
    return function()
