"""A module imports only from modules above it in this list, at its top or inside its functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tune_prune

STOREYS = {
    "plain Python": "errors watchdog registry address atomic seeds pareto confidence conf limits records ancestry",
    "torch": (
        "models splits given vision data norms augment masks multiply_adds granularity measure gates "
        "removal score_cache criteria schedule recipe sgd step training dropout plan pruning by_layer "
        "checkpoint sparse_file sizes channels compaction latency dense task gpu"
    ),
    "one model, by hand": "wanted one_model interrupted one_model_files formats export sensitivity sensitivity_files",
    "a search, described": "curves groups knobs keys strategy space space_file storages config retracing replay prior",
    "a search, told": (
        "front confirm refit obstacle results summary outputs plots published chart_style front_chart charts "
        "importance screen page report_files report_tables unfinished pick interactive report"
    ),
    "a search, run": (
        "budget pace recovery finishing stopping study observations ledger rounds turns judge company trials "
        "searcher shared trainable standing telling cluster session loggers dashboard tuning fanout preparation "
        "guesses afterwards progress run api"
    ),
    "the command line": "help_panels model_commands export_command sensitivity_command search_commands cli __main__",
}
ORDER = ["__init__", *" ".join(STOREYS.values()).split()]
FILES = {path.stem: path for path in Path(tune_prune.__file__).parent.glob("*.py")}
ALLOWED = {
    "ray": {"searcher", "trainable", "cluster", "session", "tuning", "fanout", "loggers"},
    "optuna": {"storages", "study", "observations", "ledger", "trials", "importance", "dashboard", "run"},
}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """(what is imported, whether at the module's top level): `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node in tree.body) for alias in node.names)


def test_every_module_has_its_place() -> None:
    assert sorted(set(FILES) - set(ORDER)) == []
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("name", FILES)
def test_imports_go_up(name: str) -> None:
    above = {"__version__", *ORDER[: ORDER.index(name)]}
    plain = name in STOREYS["plain Python"].split()
    for imported, at_top in imports(ast.parse(FILES[name].read_text())):
        package, *rest = imported.split(".")
        if name == "__init__" and not at_top:
            continue  # handed on when it is asked for
        if package == "tune_prune":
            assert rest[0] in above, f"{name} imports {rest[0]}, which is not above it"
        assert name in ALLOWED.get(package, {name}), f"{name} imports {package}"
        assert not (plain and package == "torch"), f"{name} is plain Python and imports torch"
        assert not (at_top and package == "torchvision"), f"{name} imports torchvision at its top"
