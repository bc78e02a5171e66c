"""The report of a run: one HTML file that needs no network and runs no script, to be sent, kept and read later."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from html import escape

from stabmon import __version__
from stabmon.findings import Digest, Entry, Finding, digest
from stabmon.findings.digest import address
from stabmon.formatting import flat, number, plural, words
from stabmon.metrics import Place, describe
from stabmon.records import RunInfo
from stabmon.reports.drawing import chart
from stabmon.store import RunReader
from stabmon.terminal import plain

POINTS = 300
"""Most points of a line."""
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2127;background:#fff}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #ccd}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f3f4f6;padding:.6rem;overflow-x:auto}table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.2rem .9rem .2rem 0;border-bottom:1px solid #e4e6ea}
.verdict{font-size:1.2rem}.finding{border-left:5px solid #0b57a4;padding:.1rem 0 .1rem 1rem;margin:1rem 0}
.error{border-color:#b3261e}.warning{border-color:#8a5000}.cleared{opacity:.75}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif}svg text:not([fill]){fill:#444}
.grid{stroke:#e4e6ea}.line{fill:none;stroke-width:1.4}.odd{stroke:#b3261e;stroke-width:2}
"""


def page(name: str, run: RunReader) -> str:
    """Return the report of ``run``: verdict, findings with fixes, charts, configuration, and what is missing."""
    beat, found = run.heartbeat(), run.findings()
    shown = digest(found, layers=len(run.info.model.attentions), beat=beat)
    title = f"{name}: {shown.health.title}"
    parts = [
        f"<h1>{_text(name)}</h1><p>{_text(beat.words)}, {plural(beat.samples, 'sample')}, last step {beat.step}</p>",
        f'<p class="verdict">{_text(shown.verdict)}</p>',
        "<h2>Findings</h2>",
        *_findings(shown, found),
        "<h2>Missing</h2>" if run.failures() else "",
        _table((one.text, one.when) for one in run.failures()),
        "<h2>Charts</h2>",
        *_charts(run, found),
        *_about(run.info),
        f"<p>stabmon {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC</p>",
    ]
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><style>{STYLE}</style>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    return f'<!doctype html><html lang="en"><head>{policy}{head}</head><body>{"".join(parts)}</body></html>\n'


def _text(text: object) -> str:
    return escape(plain(str(text)))


def _table(rows: Iterable[Iterable[object]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{lines}</table>" if lines else ""


def _findings(shown: Digest, found: Iterable[Finding]) -> Iterator[str]:
    by_key = {address(one.key): one for one in found}
    if not shown.entries:
        yield "<p>No findings.</p>"
    for entry in shown.entries:
        yield _finding(entry, by_key[entry.keys[0]])


def _finding(entry: Entry, first: Finding) -> str:
    state = "" if entry.open else " cleared"
    parts = [f"<h3>{_text(entry.headline)} {_text(entry.place_and_time)}</h3><p>{_text(entry.message)}.</p>"]
    parts += [f"<p>Cause: {_text(entry.cause)}.</p>"]
    parts += [f"<p>{_text(entry.advice)}</p>"] if entry.advice else []
    if first.fixes and entry.first_try is None:
        parts += [f"<pre>{_text(code)}</pre>" for code in (first.fix.code, first.fix.diff) if code]
    symptoms = (
        f"<li>{_text(one.headline)} {_text(one.place_and_time)}: {_text(one.message)}" for one in entry.symptoms
    )
    below = "".join(symptoms)
    parts += [f"<p>Follows from it:</p><ul>{below}</ul>"] if below else []
    return f'<div class="finding {entry.severity}{state}">{"".join(parts)}</div>'


def _charts(run: RunReader, found: Iterable[Finding]) -> Iterator[str]:
    """Yield the metrics that findings are about first, then those of the run, then the others."""
    recorded = run.layout.metrics
    flagged = dict.fromkeys(one.metric for one in found if one.metric in recorded)
    of_run = [metric for metric in recorded if run.layout.layers(metric) == [None]]
    for metric in dict.fromkeys((*flagged, *of_run, *recorded)):
        series = run.read_layers(metric, max_points=POINTS)
        if not len(series.steps):
            continue
        known = describe(metric, Place.LAYER if series.spots[0].layer else Place.RUN)
        unit = "" if known.unit in ("1", "") else f" [{known.unit}]"
        yield f"<h3>{_text(words(metric))}{_text(unit)}</h3><p>{_text(known.text)}</p>{chart(series, words(metric))}"


def _about(info: RunInfo) -> Iterator[str]:
    settings = (
        (key, number(value, 6) if isinstance(value, float) else value) for key, value in flat(info.config).items()
    )
    yield "<h2>Configuration</h2>" + (_table(settings) or "<p>None was given.</p>")
    if info.limits:
        yield "<h2>Limits that are not the default</h2>" + _table(flat(info.limits).items())
    yield "<h2>Model</h2>" + _table([("parameters", f"{info.model.parameters:,}"), *_layers(info)])
    yield "<h2>Versions</h2>" + _table([*info.versions.items(), ("started", f"{info.created:%Y-%m-%d %H:%M %Z}")])


def _layers(info: RunInfo) -> Iterator[tuple[str, str]]:
    for one in info.model.attentions:
        bias = "" if one.bias is None else f", bias {one.bias}"
        yield one.layer, f"{one.kind}, {one.heads} heads of {one.head_dim}{bias}"
