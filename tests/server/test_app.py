import json
import re
from pathlib import Path

import pytest

from stabmon.records import RunState
from stabmon.server.page import STANDALONE, STATIC

ASSETS = sorted(STATIC.iterdir())
NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/v1/runs", "/api/v1/runs/nope", "/nowhere"])
def test_every_answer_forbids_foreign_scripts_and_sniffing(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"


def test_the_page_has_no_inline_script_or_style_and_all_it_names_is_there(client):
    page = client.get("/?run=naive").text
    assert not re.search(r'<script(?![^>]*\b(src=|type="application/json"))|<style|\son\w+=', page)
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(named) >= 6
    for path in named:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"]


def test_the_page_names_every_module_so_that_none_waits_for_another(client):
    named = re.findall(r'<link rel="modulepreload" href="/static/\w+/([\w.]+)">', client.get("/").text)
    assert sorted(named) == sorted(
        asset.name for asset in ASSETS if asset.suffix == ".js" and asset.name not in STANDALONE
    )


def test_the_verdict_and_what_a_browser_asks_for_first_are_in_the_page(client):
    answer = client.get("/?run=naive")
    assert "<h1>Unhealthy since step 0</h1>" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    first = json.loads(re.search(r'id="first">(.*)</script>', answer.text)[1])
    for part, path in (("detail", ""), ("findings", "/findings"), ("digest", "/digest"), ("failures", "/failures")):
        assert first[part] == client.get(f"/api/v1/runs/naive{path}").json()
    for query in ("", "?run=nope", "?run=../two", "?run=%FF"):
        assert 'id="first"' not in client.get(f"/{query}").text


def test_nothing_that_a_run_holds_becomes_markup(runs, open_client, make_findings):
    writer = runs.start("<b>")
    runs.write(writer, range(3))
    evil = "</script><img src=x onerror=alert(1)>"
    writer.findings([make_findings()[0].model_copy(update={"layer": evil, "message": evil})])
    writer.close(RunState.FINISHED)
    text = open_client(runs.directory).get("/?run=%3Cb%3E").text
    assert "<img" not in text.replace('<img src="/static/', "")


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_no_asset_names_another_host(asset: Path):
    text = asset.read_text(encoding="utf-8").replace(NAMESPACE, "")
    assert not re.search(r"""["'(=\s](https?:)?//[\w.]+\.\w""", text)


@pytest.mark.parametrize("asset", [asset for asset in ASSETS if asset.suffix == ".js"], ids=lambda asset: asset.name)
def test_every_module_imports_what_exists(asset: Path):
    for names, module in re.findall(r'import \{([^}]+)\} from "\./([\w.]+)"', asset.read_text(encoding="utf-8")):
        there = (STATIC / module).read_text(encoding="utf-8")
        for name in names.split(","):
            assert re.search(rf"export (async )?(const|let|function|class) {name.strip()}\b", there), (module, name)
            used = len(re.findall(rf"\b{name.strip()}\b", asset.read_text(encoding="utf-8")))
            assert used > 1, f"{asset.name} imports {name.strip()} and does not use it"


def test_the_page_and_its_parts_are_installed_with_the_package():
    folders = [asset for asset in ASSETS if asset.is_dir()]
    assert folders == [], "package data names static/* alone: a folder in it would not be installed"
