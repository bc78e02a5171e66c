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
    "yaml_file",
    "terminal",
    "child_process",
    "schedule",
    "store",
    "rules",
    "sinks",
    "remote",
    "reports",
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
    "reports",
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
            dot = "" if module.endswith(".") else "."
            found.update(f"{module}{dot}{alias.name}" for alias in node.names)
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


def test_a_bare_import_of_kernels_in_a_checkout_leaves_those_of_stabmon_usable() -> None:
    script = "import kernels, stabmon.kernels as ours; ours.sigmoid_attention"  # Transformers imports that name
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


def _modules() -> dict[str, Path]:
    """Return the files of stabmon, the kernels and the server by the name that they are imported by."""
    paths = [*(ROOT / "stabmon").rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), *(ROOT / "server").rglob("*.py")]
    found = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "stabmon" else ("stabmon", *parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _edges(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of the project that a module imports, inside functions too.

    ``from package import module`` is an import of the module, not of what the package's ``__init__`` gathers.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names = set()
    for imported in _imports(path):
        bare = imported.lstrip(".")
        parents = package.split(".")[: len(package.split(".")) - (len(imported) - len(bare)) + 1]
        names.add(".".join([*parents, bare]).strip(".") if imported.startswith(".") else imported)
    gathered = {found.rpartition(".")[0] for found in names if found in modules}
    attributes = {found.rpartition(".")[0] for found in names if found not in modules}
    return {found for found in names if found in modules and (found not in gathered or found in attributes)} - {name}


def _circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        pending = [start]
        while pending:
            for target in edges[pending.pop()] - seen:
                seen.add(target)
                pending.append(target)
        reached[start] = seen
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in edges if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def _graph() -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    modules = _modules()
    return {name: _edges(name, path, modules) for name, path in modules.items()}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert _circles(_graph()) == []


def test_a_circle_through_three_modules_is_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


KERNEL_LAYERS = (
    (
        "releases",
        "cache",
        "device",
        "sigmoid_forms",
        "problem",
        "visibility",
        "options",
        "auxiliary",
        "observe",
        "softmax_twin",
        "validation",
        "flops",
    ),
    ("launching",),
    ("eager", "triton", "hopper"),
    ("choice", "ops"),
    ("dispatch",),
    ("api", "varlen"),
    ("bench",),
)
"""The parts of the kernels from the bottom up: contract, launching, backends, choice, call, public functions, bench."""


def test_the_kernels_import_only_downwards_and_no_backend_another() -> None:
    level = {part: at for at, parts in enumerate(KERNEL_LAYERS) for part in parts}
    for name, targets in _graph().items():
        if not name.startswith("stabmon.kernels."):
            continue
        part = name.split(".")[2]
        for target in (found.split(".")[2] for found in targets if found.startswith("stabmon.kernels.")):
            same_backend_or_contract = level[target] == level[part] and (level[part] != 2 or target == part)
            assert level[target] < level[part] or same_backend_or_contract, (name, target)


IN_EACH_FRAMEWORK = {"StabmonCallback"}
"""Classes that each framework's integration has, under one name."""


def test_no_two_public_classes_have_one_name() -> None:
    files: dict[str, set[Path]] = {}
    for part in ("stabmon", "server"):
        for path in _source(part):
            for node in ast.parse(path.read_text()).body:
                if (
                    isinstance(node, ast.ClassDef)
                    and not node.name.startswith("_")
                    and node.name not in IN_EACH_FRAMEWORK
                ):
                    files.setdefault(node.name, set()).add(path.resolve())
    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}
