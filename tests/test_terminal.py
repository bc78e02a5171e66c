import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from stabmon.records import Heartbeat, RunState
from stabmon.terminal import Terminal, json_text, plain

HOSTILE = "\x1b[2J\x1b]0;title\x07[/red][bold]\r\x9b1m\u202e:smile:\udcff"


def test_only_printable_characters_and_line_ends_stay():
    assert plain("layers.3 σ └ 中\nnext") == "layers.3 σ └ 中\nnext"
    assert plain("a\x1b[31m\x7f\x9b\u202e\udc80\r\t") == "a\\x1b[31m\\x7f\\x9b\\u202e\\udc80\\r\\t"


@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_hostile_text_is_printed_and_not_obeyed_in_lines_tables_and_styled_text(colours):
    file = io.StringIO()
    terminal = Terminal(file=file, width=200, color_system=colours, force_terminal=colours is not None)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    for one in (HOSTILE, Text(HOSTILE, style="bold red"), table):
        terminal.print(one)
    said = file.getvalue()
    assert said.count("\\x1b[2J\\x1b]0;title") == 5
    assert "[/red][bold]" in said
    assert ":smile:" in said
    assert not set("\x07\r\x9b\u202e\udcff") & set(said)
    assert "\x1b[2J" not in said
    assert ("\x1b[1;31m" in said) == (colours is not None)


def test_json_is_ascii_and_holds_no_number_that_json_has_not():
    beat = Heartbeat(state=RunState.RUNNING, step=1, time=float("inf"))
    value = {"σ\x9b": [beat], "nan": float("nan"), "low": -float("inf")}
    text = json_text(value)
    assert text.isascii()

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(text, parse_constant=refuse)
    assert read["σ\x9b"][0]["time"] == "Infinity"
    assert (read["nan"], read["low"]) == ("NaN", "-Infinity")
