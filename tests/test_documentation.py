"""README, documentation and configurations say what is so: commands, tables, snippets and links are checked."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stabmon import config, rules
from stabmon.cli import app
from stabmon.evaluation import report
from stabmon.evaluation.foreign import report as foreign_report

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {str(path.relative_to(ROOT)): path for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])}
COMMANDS = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
COMMANDS |= {group.name for group in app.registered_groups if group.name}
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


IDIOMS = {
    r"mend(s|ed|ing)?|remed(y|ies)": "fix, fixed",
    r"knobs?": "setting",
    r"(?-i:promise|[pP]romise[sd])": "expected effect",
    r"propos(es?|ed|als?)": "suggest, suggested",
    r"asks? the rules again": "re-evaluate the rules",
    r"stands? (beneath|still|for (itself|themselves))|how \w+ runs? stands?": "is listed under its cause",
    r"fails? no more": "succeed when retrained with the first fix",
    r"by its own clock": "self-measured",
    r"who comes last|told by a counter": "the last program (atomic counter)",
    r"timed apart": "published, timed in separate runs",
    r"nobody can help": "the unavoidable rounding floor",
    r"at the learning rate's door": "attributed to the learning rate",
    r"gone silent": "inactive",
    r"what torch may ask": "PyTorch integration",
    r"(?-i:Sighting|Wishes|GRAVER)": "Observation, RunOptions, ESCALATED",
    r"attention-died|longer-than-made-for": "dead-attention-layer, exceeds-training-length",
    r"told|tells?( \w+)? apart|tells? (from|of)|cannot tell": "distinguish, report, determine",
    r"loud(ly|er|ness)?|grav(er|est)": "alarming, severe",
    r"settled?|settles": "flush, finish",
    r"how wrong|worked out|carried out|goes by|as it were": "error; computed; applied; uses",
    r"laid at|speaks? (of|in|to)|learns? to be": "attributed to; flags, concerns; becomes",
    r"step_zero|--into\b|--silence\b|--mend\b": "preflight, --output, --ignore, --apply-fixes",
}
"""Words that only we used, and the field's own."""
TEXTS = [f"*.{ending}" for ending in ("md", "py", "js", "yaml", "html", "css", "toml")]
QUESTIONS = ("What", "How", "Which", "Where", "Who", "Whose", "Whether", "Why")


def _snippets() -> list[object]:
    blocks = [
        (name, block)
        for name, path in PAGES.items()
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
    ]
    return [pytest.param(block, id=f"{name}-{at}") for at, (name, block) in enumerate(blocks)]


def test_the_readme_has_the_two_install_commands() -> None:
    assert "pip install -c configs/constraints.txt -e . && stabmon demo" in README
    assert "pip install -c configs/constraints.txt -e '.[test]' && pytest" in README


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.slow
@pytest.mark.parametrize("snippet", _snippets())
def test_every_python_snippet_runs(snippet: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_table_of_the_evaluation_is_that_of_the_stored_result() -> None:
    stored = report.read(ROOT / "configs" / "evaluation.json")
    assert report.markdown(stored.of("held-out")).strip() in (ROOT / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize("split", ["tuning", "held-out"])
def test_the_tables_of_the_foreign_families_are_those_of_the_stored_results(split: str) -> None:
    stored = foreign_report.read(ROOT / "configs" / f"foreign-{split}.json")
    assert foreign_report.markdown(stored).strip() in (ROOT / "docs" / "evaluation.md").read_text()


def test_every_command_of_the_command_line_is_in_the_readme_and_the_other_way_round() -> None:
    assert set(re.findall(r"^\| `stabmon (\w+)", README.partition("## Results")[0], flags=re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("name", PAGES)
def test_every_stabmon_command_that_a_page_names_exists(name: str) -> None:
    named = set(re.findall(r"`(?:time )?stabmon ([a-z]+)", PAGES[name].read_text()))
    assert named <= COMMANDS


@pytest.mark.parametrize("path", config.documented().values(), ids=lambda path: path.stem)
def test_every_configuration_that_ships_can_be_read_and_says_what_it_shows(path: Path) -> None:
    assert config.load(path).name == path.stem
    assert path.read_text().startswith("# ")


def test_every_file_of_configs_is_on_the_page_of_configurations(site: Path) -> None:
    page = (site / "configurations.html").read_text()
    documented = config.documented()
    for path in (ROOT / "configs").iterdir():
        if path.suffix in {".yaml", ".json", ".txt"}:
            assert f"<code>{path.stem if path.stem in documented else f'configs/{path.name}'}</code>" in page, path


def test_links_of_the_readme_are_absolute_and_lead_to_files_of_the_repository() -> None:
    raw = REPOSITORY.replace("github.com", "raw.githubusercontent.com")
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    ours = [target for target in targets if target.startswith((REPOSITORY, raw))]
    assert len(ours) > 5
    assert [target for target in targets if not target.startswith("https://")] == []
    for target in ours:
        path = re.sub(rf"^({re.escape(REPOSITORY)}/blob|{re.escape(raw)})/main/", "", target)
        assert (ROOT / path).is_file(), target


def test_links_between_pages_lead_somewhere() -> None:
    made = {f"{name}.md" for name in ("contributing", "changelog")} | {"page.png", "../bench.svg"}
    for name, path in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", path.read_text()):
            known = target in made or target.startswith("https://") or (path.parent / target).exists()
            assert known, (name, target)


def test_the_tree_in_contributing_names_folders_that_exist() -> None:
    (tree,) = re.findall(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        assert (ROOT / folder / name if line.startswith(" ") else ROOT / name).exists(), line


def test_no_text_holds_a_merge_that_was_not_resolved() -> None:
    marked = subprocess.run(["git", "grep", "-lE", "^(<<<<<<<|>>>>>>>) "], cwd=ROOT, capture_output=True, text=True)
    assert marked.stdout == ""


MANY_STEPS = {"An option of the kernel": 7}
"""Additions of more than three steps: an option passes from the caller to every backend, or is refused there."""


def test_every_how_to_add_has_at_most_three_steps_and_its_files_exist() -> None:
    (how_to,) = re.findall(r"## How to add\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    for part in how_to.split("\n### ")[1:]:
        title, _, text = part.partition("\n")
        steps = re.findall(r"^\d\. .*", text, flags=re.MULTILINE)
        assert 1 <= len(steps) <= MANY_STEPS.get(title, 3), title
        for place in re.findall(r"`([\w./]+/[\w./]+)`", text):
            known = re.split(r"/[\w.]*(?:NAME|FAMILY|CODE)", place)[0]
            assert (ROOT / known).exists(), (title, place)


def test_texts_and_code_use_standard_terms() -> None:
    listed = subprocess.run(["git", "ls-files", *TEXTS], check=True, cwd=ROOT, capture_output=True, text=True)
    here, anything = str(Path(__file__).relative_to(ROOT)), re.compile(rf"(?<!\w)(?:{'|'.join(IDIOMS)})(?!\w)", re.I)
    found = []
    for name in listed.stdout.split():
        path = ROOT / name
        if name in {"CHANGELOG.md", here} or not path.is_file():
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for said in {line, line.replace("_", " ")}:  # the words of a name, too
                if word := anything.search(said):
                    better = next(better for idiom, better in IDIOMS.items() if re.fullmatch(idiom, word[0], re.I))
                    found.append(f"{name}:{number}: {word[0]!r}; better: {better}")
    assert found == [], "\n".join(found)


def test_docstrings_begin_with_the_thing_itself() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], check=True, cwd=ROOT, capture_output=True, text=True)
    found = []
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.split()):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            match node:
                case ast.Expr(ast.Constant(str(text))) if text.partition(" ")[0] in QUESTIONS:
                    found.append(f"{name}:{node.lineno}: {text.splitlines()[0]}")
    assert found == [], "\n".join(found)


@pytest.mark.parametrize("name", [name for name in PAGES if "kernels" in name])
def test_files_and_functions_that_the_kernel_notes_name_exist(name: str) -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    files: dict[str, str] = {}
    for path in map(Path, listed.split()):
        if not (ROOT / path).is_symlink():
            files[path.stem] = files.get(path.stem, "") + (ROOT / path).read_text()
    text = PAGES[name].read_text()
    named = re.findall(r"`([a-z_]+)\.py`", text)
    assert [stem for stem in named if stem not in files] == []
    functions = [
        (stem, what) for stem, what in re.findall(r"`([a-z_]+)\.(\w+)`", text) if stem in files and what != "py"
    ]
    assert [f"{stem}.{what}" for stem, what in functions if what not in files[stem]] == []


def test_a_page_is_made_for_every_rule_and_the_list_is_the_catalogue(site: Path) -> None:
    listed = re.findall(r'href="([A-Z]{3}\d{3})\.html"', (site / "rules" / "index.html").read_text())
    assert set(listed) == {rule.code for rule in rules.catalogue()}
    page = (site / "rules" / "ATT001.html").read_text()
    assert rules.document("ATT001").limits[0].name in page
    assert 'src="ATT001.svg"' in page
    assert (site / "rules" / "ATT001.svg").is_file()


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', path.read_text())
        assert [address for address in loaded if not address.startswith("https://arxiv.org")] == [], path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as CI builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
