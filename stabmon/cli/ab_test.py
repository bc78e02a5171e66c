"""``stabmon try``: a fix, or softmax attention, compared by a short training with it and without it."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stabmon.cli.progress import training_bar
from stabmon.errors import FixError
from stabmon.fixes import registry
from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from stabmon.ab_test import RaceReport, TrialReport
    from stabmon.config import RunConfig
    from stabmon.fixes.record import Fix


def try_fix(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a documented run such as naive.")],
    fix: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"What to try: {', '.join(registry.names())}; without it, the first fix that preflight names.",
        ),
    ] = None,
    value: Annotated[float | None, typer.Option(help="Value of the fix, such as a bias, with --fix.")] = None,
    against: Annotated[
        Literal["softmax"] | None,
        typer.Option(help="Compare with the same model with softmax in place of sigmoid, instead of a fix."),
    ] = None,
    recipes: Annotated[
        bool,
        typer.Option(
            "--recipes", help="With --against: QK norm, hybrid norm, LayerScale, learnable bias, other positions too."
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=2, help="Optimizer steps of each side; 40, or 200 --against.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often both sides are trained.")] = 3,
    after: Annotated[int, typer.Option(min=0, help="Steps that are trained without the fix before.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a run for a few steps with and without a fix, from the same state on the same data; compare them.

    With --against softmax the two sides are the run and the same model with softmax attention.
    """
    from stabmon import config as configuration
    from stabmon.ab_test import trial_of_run
    from stabmon.workloads import training

    loaded, device = configuration.load(config), training.pick_device(device)
    if against is not None:
        if fix is not None or value is not None or after:
            raise FixError("--against compares attention functions; leave --fix, --value and --after out")
        _race(loaded, steps or 200, seeds, recipes, device, as_json)
        return
    if recipes:
        raise FixError("--recipes are raced with --against softmax; for one fix name it, such as --fix qk_norm")
    steps = steps or 40
    fixes = _fixes(loaded, fix, value, device)
    with training_bar(f"{loaded.name}: {fixes[0].kind}", 2 * seeds * steps) as progress:
        report = trial_of_run(loaded, fixes, steps=steps, seeds=seeds, after=after, device=device, progress=progress)
    _print(report, as_json)


def _race(config: "RunConfig", steps: int, seeds: int, recipes: bool, device: str, as_json: bool) -> None:
    from stabmon.ab_test import race_of_run
    from stabmon.ab_test.recipes import RECIPES, positions

    contestants = 2 + (len(RECIPES) + len(positions(config)) if recipes else 0)
    with training_bar(f"{config.name} against softmax", contestants * seeds * steps) as progress:
        report = race_of_run(config, steps=steps, seeds=seeds, recipes=recipes, device=device, progress=progress)
    _print(report, as_json)


def _print(report: "TrialReport | RaceReport", as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        Terminal().print(report)


def _fixes(config: "RunConfig", kind: str | None, value: float | None, device: str) -> "tuple[Fix, ...]":
    from stabmon.preflight_check import preflight
    from stabmon.preflight_check.fixes_of_kind import fixes_of_kind
    from stabmon.workloads import training

    if kind is None and value is not None:
        raise FixError("--value is the value of a fix; name it with --fix, such as --fix bias")
    if kind is not None:
        registry.find(kind)
    inputs, _ = next(iter(training.batches(config, device)))
    report = preflight(training.build(config, device), inputs, config=config.model_dump(mode="json"))
    fixes = report.fixes if kind is None else fixes_of_kind(kind, config, report, value)
    if not fixes:
        raise FixError(
            f"preflight finds nothing to fix in {config.name}; name what to try: --fix {' | '.join(registry.names())}"
        )
    return fixes
