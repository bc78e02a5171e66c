"""``stabmon token``: who may read, write and administer a store of runs."""

from pathlib import Path
from typing import Annotated

import typer

from stabmon.cli.serve import StoreOption
from stabmon.errors import ConfigError
from stabmon.store.tokens import Scope, Tokens
from stabmon.terminal import Terminal, print_json

app = typer.Typer(help="Create, list and revoke the tokens of a server's store.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option("--dir", help="Folder of runs that the server serves.")]
Name = Annotated[str, typer.Argument(help="Name of the token: who has it, or what for.")]


def _tokens(directory: Path, store: str | None) -> Tokens:
    if store is not None:
        from stabmon.store.postgres import PostgresStore

        return PostgresStore(store).tokens
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a folder; give that of the runs by --dir, or a team's store by --store")
    from stabmon.store.run_folder import RunFolder

    return RunFolder(directory).tokens


@app.command()
def create(
    name: Name,
    scope: Annotated[Scope, typer.Option(help="read: read runs; write: send runs; admin: both, and delete.")],
    directory: Directory = Path("runs"),
    store: StoreOption = None,
) -> None:
    """Make a token and print it, once: the store keeps its hash alone."""
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise ConfigError(f"a token's name must have 1 to 200 printable characters, got {name!r:.80}")
    typer.echo(_tokens(directory, store).create(name, scope))


@app.command("list")
def listed(
    directory: Directory = Path("runs"),
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the tokens by name, with scope and date."""
    from rich.table import Table

    found = _tokens(directory, store).listed()
    if as_json:
        print_json(found)
        return
    table = Table("token", "scope", "created", title="Tokens", title_justify="left")
    for one in found:
        table.add_row(one.name, one.scope, f"{one.created:%Y-%m-%d %H:%M} UTC")
    Terminal().print(table)


@app.command()
def revoke(name: Name, directory: Directory = Path("runs"), store: StoreOption = None) -> None:
    """Make a token useless; a server that has just seen it takes it for two more seconds."""
    if not _tokens(directory, store).revoke(name):
        raise ConfigError(f"there is no token named {name!r}: `stabmon token list` names them")
    Terminal().print(f"revoked {name}")
