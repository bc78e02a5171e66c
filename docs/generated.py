"""Pages that mkdocs makes from the code: rules, metrics, commands, configurations, HTTP API. A hook of mkdocs.yml."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from stabmon import config as configuration
from stabmon import rules
from stabmon.cli import app
from stabmon.cli.run import EXIT_CODES
from stabmon.formatting import number
from stabmon.metrics import METRICS, document
from stabmon.rules import RuleDocument
from stabmon.server import encoding
from stabmon.server.app import create_app
from stabmon.server.problems import EVERYWHERE
from stabmon.server.reference import Operation, operations

ROOT = Path(__file__).parent.parent
PICTURES = ("kernels/bench/bench.svg", "server/page.png")
"""Shown on a page by their names."""
CODES = [rule.code for rule in rules.catalogue()]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each rule into the navigation."""
    section = next(entry for entry in config.nav if "Rules" in entry)
    section["Rules"] = ["rules/index.md", *(f"rules/{code}.md" for code in CODES)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each rule, pages that are files of the repository, and the pictures kept beside the code."""
    pages = {f"rules/{code}.md": rule_page(rules.document(code)) for code in CODES}
    pages |= {f"{name.lower()}.md": (ROOT / f"{name}.md").read_text() for name in ("CONTRIBUTING", "CHANGELOG")}
    pictures = {f"rules/{code}.svg": plot for code in CODES if (plot := rules.gallery.plot_of(code)) is not None}
    pictures |= {Path(name).name: ROOT / name for name in PICTURES}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for name, path in pictures.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put the table that a page asks for by ``<!-- generated: NAME -->`` in its place."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda found: TABLES[found[1]](), markdown)


def rule_page(one: RuleDocument) -> str:
    """Return the page of one rule: its docstring's sections, its reference plot and its limits."""
    sections = {
        "What it checks": one.checks,
        "Why it matters": one.matters,
        "Suggested fix": one.fix,
        "When the fix is wrong": one.wrong,
        "References": _linked(one.references),
    }
    plot = f"![A bad and a good run]({one.code}.svg)" if rules.gallery.plot_of(one.code) else ""
    parts = [f"# {one.code} {one.name}", f"{one.title} Severity: {one.severity}; evidence: {one.evidence}.", plot]
    parts += [f"## {title}\n\n{text[:1].upper()}{text[1:]}" for title, text in sections.items()]
    if one.limits:
        limits = [(f"`{x.name}`", number(x.default), x.unit, x.text, _linked(x.source)) for x in one.limits]
        parts.append("## Limits\n\n" + _table(("limit", "default", "unit", "meaning", "source"), limits))
    if one.symptom_of:
        causes = ", ".join(f"[{code}]({code}.md)" for code in one.symptom_of)
        parts.append(
            f"## Listed under\n\nA finding of this rule is listed under one of these, if there is one: {causes}."
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def rule_table() -> str:
    """Return the list of rules, each code a link to its page."""
    return re.sub(r"^\| ([A-Z]{3}\d{3}) \|", r"| [\1](\1.md) |", rules.markdown_table(), flags=re.MULTILINE)


def metric_table() -> str:
    """Return the glossary of what is recorded."""
    rows = [(f"`{one.name}`", str(one.place), one.unit, one.text, one.over_passes) for one in map(document, METRICS)]
    return _table(("metric", "measured per", "unit", "definition", "over the passes of a step"), rows)


def command_list() -> str:
    """Return each command with its arguments and options, as ``--help`` has them."""
    group = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        rows = [(_parameter(one), getattr(one, "help", None) or "") for one in command.params]
        parts.append(f"## stabmon {name}\n\n{command.help}\n\n" + _table(("argument", "meaning"), rows))
    return "\n\n".join(parts)


def exit_codes() -> str:
    """Return the exit codes of all commands."""
    return EXIT_CODES


def _parameter(one: Any) -> str:
    names = [one.name.upper()] if one.param_type_name == "argument" else [*one.opts, *one.secondary_opts]
    return ", ".join(f"`{name}`" for name in names)


def configuration_table() -> str:
    """Return the configurations that ship, each with the comment that opens its file."""
    firsts = {name: path.read_text().partition("\n")[0] for name, path in configuration.documented().items()}
    return _table(("name", "what it shows"), [(f"`{name}`", first[2:]) for name, first in firsts.items()])


def route_table() -> str:
    """Return the requests that the service answers, each with the first sentence of its documentation."""
    rows = [(f"`{one.method} {one.path}`", " ".join(one.text.partition("\n\n")[0].split())) for one in _requests()]
    return _table(("request", "answer"), rows)


def request_list() -> str:
    """Return each request with its parameters and answers, as the OpenAPI description has them."""
    parts = []
    for one in _requests():
        parts.append(f"### {one.method} {one.path}\n\n{one.text}")
        if one.parameters:
            parts.append(_table(("parameter", "type", "meaning"), one.parameters))
        own = [answer for answer in one.answers if int(answer[0]) not in EVERYWHERE]
        parts.append(_table(("status", "form", "meaning"), own))
        if one.events:
            parts.append(_table(("event", "data"), one.events))
    return "\n\n".join(parts)


def packed_form() -> str:
    """Return the form of a packed series."""
    return (encoding.__doc__ or "").partition("\n\n")[2]


def _requests() -> Iterable[Operation]:
    return operations(create_app(ROOT).openapi())


def _linked(text: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a vertical bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *([" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {
    "rules": rule_table,
    "metrics": metric_table,
    "commands": command_list,
    "configurations": configuration_table,
    "exit_codes": exit_codes,
    "routes": route_table,
    "requests": request_list,
    "packed": packed_form,
}
"""Generated blocks that a page may include, by name."""
