"""Packages import only packages before them; Ray stays in `distributed`, Optuna in `hpo`."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tune_prune

ORDER = (
    "common", "tasks", "training", "pruning", "export", "results", "hpo", "distributed", "workflows", "cli",
)  # fmt: skip
HOME = {"ray": "distributed", "optuna": "hpo"}
ROOT = Path(tune_prune.__file__).parent
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
MODULES = {name: path for name, path in FILES.items() if "." in name and name.partition(".")[0] in ORDER}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """(what is imported, whether at the module's top level): `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node in tree.body) for alias in node.names)


def own_imports(name: str) -> set[str]:
    """The package's modules that a module imports, at its top or inside its functions."""
    found = [imported.split(".")[1:] for imported, _ in imports(ast.parse(FILES[name].read_text()))
             if imported.startswith("tune_prune.")]  # fmt: skip
    names = {".".join(parts[:end]) for parts in found for end in range(1, len(parts) + 1)}
    return names & FILES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_its_own_package_and_those_before_it(name: str) -> None:
    package = name.partition(".")[0]
    allowed = {*ORDER[: ORDER.index(package) + 1]}
    assert {other for other in own_imports(name) if other.partition(".")[0] not in allowed} == set()


@pytest.mark.parametrize("name", FILES)
def test_libraries_stay_where_they_belong(name: str) -> None:
    for imported, at_top in imports(ast.parse(FILES[name].read_text())):
        library = imported.partition(".")[0]
        if library in HOME:
            assert name.partition(".")[0] == HOME[library], f"{name} imports {library}"
        assert not (library == "torch" and name.startswith("common.")), f"{name} is plain Python and imports torch"
        assert not (at_top and library == "torchvision"), f"{name} imports torchvision at its top"


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter({name: own_imports(name) - {name} for name in FILES}).prepare()  # raises CycleError


def test_every_package_says_what_it_is_for() -> None:
    for package in ORDER:
        assert len(ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())).splitlines()) >= 2


def test_every_module_has_a_package() -> None:
    assert {name for name in FILES if "." not in name} == {"__init__", "__main__", "api"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ORDER}


def test_search_stays_a_function() -> None:
    assert callable(tune_prune.search)
    assert not (ROOT / "search").exists()


def test_optunas_private_attributes_are_used_in_one_module() -> None:
    private = re.compile(r"\._(storage|study_id|trial_id)\b")
    users = {name for name, path in FILES.items() if private.search(path.read_text()) and name.startswith("hpo.")}
    assert users == {"hpo.study"}


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name: str) -> None:
    text = FILES[name].read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not name.startswith("cli."):  # whose functions list options
            assert node.end_lineno - node.lineno < 60, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
