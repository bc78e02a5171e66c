import re
from pathlib import Path

import pytest

from stabmon.server.app import STATIC

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
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=", page)
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(named) >= 6
    for path in named:
        assert client.get(path).status_code == 200, path


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
