"""Allowed imports between packages, checked in the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TORCH_FREE = (
    "records",
    "findings",
    "names",
    "formatting",
    "metrics",
    "series",
    "errors",
    "config",
    "schedule",
    "store",
    "rules",
    "sinks",
)
SERVER_MAY = (
    "__version__",
    "server",
    "records",
    "findings",
    "fixes",
    "names",
    "formatting",
    "metrics",
    "series",
    "errors",
    "store",
    "rules",
)


def _source(part: str) -> Iterator[Path]:
    folder = ROOT / part
    yield from sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _imports(path: Path, *, inside_functions: bool = True) -> set[str]:
    """Return the names that ``path`` imports; relative ones as ``.name``. TYPE_CHECKING blocks do not count."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions
        if typing_only or lazy:
            skipped.update(ast.walk(node))
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def _loads(names: set[str], package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in names)


@pytest.mark.parametrize("part", TORCH_FREE)
def test_the_torch_free_parts_import_no_torch(part: str) -> None:
    for path in _source(f"stabmon/{part}"):
        assert not _loads(_imports(path), "torch"), path


def test_kernels_import_nothing_of_stabmon_but_themselves() -> None:
    for path in _source("kernels"):
        assert not _loads(_imports(path), "stabmon"), path


def test_kernels_import_triton_only_when_they_launch() -> None:
    script = "import sys, stabmon.kernels; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_server_imports_only_records_store_and_rules() -> None:
    for path in _source("server"):
        ours = {name.split(".")[1] for name in _imports(path) if name.startswith("stabmon.")}
        assert ours <= set(SERVER_MAY), (path, ours)


def test_only_the_command_line_imports_the_server() -> None:
    for path in _source("stabmon"):
        if "cli" in path.parts or "server" in path.relative_to(ROOT / "stabmon").parts:
            continue
        assert not _loads(_imports(path), "stabmon.server"), path


@pytest.mark.parametrize("script", ["import stabmon", "import stabmon.cli, stabmon.server.app", "import stabmon.rules"])
def test_these_load_no_torch(script: str) -> None:
    subprocess.run(
        [sys.executable, "-c", f"{script}; import sys; sys.exit('torch' in sys.modules)"], check=True, cwd=ROOT
    )


def test_no_file_of_the_project_names_a_path_of_a_machine() -> None:
    banned = ["/" + "work/", "/" + "root/", "/" + "home/"]
    listed = subprocess.run(["git", "ls-files"], check=True, cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in listed:
        path = ROOT / name
        if path.suffix in {".png", ".ico"} or path.is_symlink():
            continue
        text = path.read_text()
        assert not [word for word in banned if word in text], name
