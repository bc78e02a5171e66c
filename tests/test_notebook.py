"""Reports, findings and monitors in a notebook."""

import re
from html.parser import HTMLParser

import pytest
import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

import stabmon
from stabmon.findings import Finding
from stabmon.fixes.change import Safety
from stabmon.fixes.record import Fix
from stabmon.nn import Block, SigmoidAttention
from stabmon.notebook import COLOURS, html
from stabmon.records import Evidence, Severity

ODD = '<script>alert("1")</script> & \x1b[31m'
SAFE = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; \\x1b[31m"


class Elements(HTMLParser):
    """The elements of a document, each of which is closed, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += "" if self.open[-1:] == ["style"] else f"{data} "


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(*(Block(16, SigmoidAttention(16, 2, bias=0.0, max_length=64)) for _ in range(2)))


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_table_keeps_its_title_cells_alignment_and_severities():
    table = Table("layer", "row\nmass", title="At step 0")
    table.columns[1].justify = "right"
    table.add_row("layers.0", ODD, style=Severity.ERROR.style)
    shown = html(Group(table, Text.assemble((ODD, Severity.WARNING.style), ", everywhere")))
    assert "<caption>At step 0</caption>" in shown
    assert '<th class="right">row<br>mass</th>' in shown
    assert f'<tr class="error"><td class="left">layers.0</td><td class="right">{SAFE}</td></tr>' in shown
    assert f'<p><b class="warning">{SAFE}</b>, everywhere</p>' in shown
    Elements(shown)


def test_white_text_is_readable_on_each_severity_and_all_other_text_has_the_notebooks_colour():
    for colour in COLOURS.values():
        assert 1.05 / (luminance(colour) + 0.05) > 4.5
    style = re.search("<style>(.*)</style>", html(""))[1]
    assert set(re.findall(r"[{;]color:([^;}]+)", style)) == {"inherit", "#fff"}
    assert ".stabmon table{color:inherit" in style  # where there is no doctype, tables are black
    (white,) = [rule for rule in style.split("}") if "#fff" in rule]
    assert all(f"b.{severity}" in white for severity in COLOURS)


def test_a_preflight_report_shows_what_it_prints(model):
    report = stabmon.preflight(model, torch.randn(2, 64, 16), lengths=(32, 64))
    elements = Elements(report._repr_html_())
    assert report.findings
    assert [tag for tag, _ in elements.tags].count("table") == 2
    for word in re.findall(r"[\w.*+-]{3,}", str(report)):
        assert word in elements.words, word
    attributes = {name for _, given in elements.tags for name in given}
    assert attributes == {"class"}  # nothing is loaded from anywhere


def test_a_finding_shows_its_numbers_cause_and_fix():
    fix = Fix(kind="bias", module="layers.0", value=-4.0, safety=Safety.ANY_TIME, why="rows sum to one", code="pass")
    finding = Finding(
        code="ATT001",
        name="heavy-rows",
        severity=Severity.ERROR,
        evidence=Evidence.MEASURED,
        layer="layers.0",
        head=None,
        metric="row_mass",
        value=30.0,
        limit=3.0,
        message=ODD,
        cause="the bias",
        opened=3,
        peak=3,
        last=3,
        fixes=(fix,),
    )
    shown = finding._repr_html_()
    assert f'<b class="error">ATT001 heavy-rows</b> in layers.0, since step 3: {SAFE}' in shown
    words = Elements(shown).words
    assert "Cause: the bias." in words
    assert f"Fix: {fix}: rows sum to one." in words


def test_a_monitor_shows_its_state_before_during_and_after_the_training(model, tmp_path):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with stabmon.watch(model, optimizer, dir=tmp_path, name="run", console=False) as monitor:
        assert "Waiting for the first step" in Elements(monitor._repr_html_()).words
        for _ in range(2):
            model(torch.randn(2, 64, 16)).square().mean().backward()
            optimizer.step()
        during = Elements(monitor._repr_html_()).words
    after = Elements(monitor._repr_html_()).words
    for words in (during, after):
        assert "2 steps" in words
        assert "0.attention" in words or "2 attentions" in words
        assert monitor.findings[0].code in words
