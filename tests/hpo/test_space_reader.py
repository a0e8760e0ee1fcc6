from pathlib import Path

import pytest
from toys import fault

from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import PARAMETERS, Choice, Range
from tune_prune.hpo.phases import Refinement
from tune_prune.pruning.criteria import criteria

LENET = dict.fromkeys(["1", "4", "8", "10", "12"], (10, 10))
TOML = """\
[task]
model = "lenet5"
data = "mnist"

[space]
pruner = ["mag", "taylor1"]
schedule = "linear"
rounds = {low = 2, high = 8}
lr = {low = 0.005, high = 0.1, log = true}
momentum = 0.9

[space.ratio]
"8" = {low = 0.5, high = 0.999}
"1*" = [0.5, 0.7]
"*" = 0.25

[goal]
acc_tradeoff = 1
budget = 7

[refine]
share = 0.25

[[initial.point]]
ratio = 0.9
rounds = 4

[[initial.point]]
ratio = {"8" = 0.6, "10" = 0.5}
pruner = "mag"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "toy.toml"


def test_groups_and_exclusion(file: Path) -> None:
    old, new = '"8" = {low = 0.5, high = 0.999}', '"8*" = {low = 0.5, high = 0.999, group = true}'
    text = TOML.replace(old, new)
    file.write_text(text.replace("[space]\n", '[space]\nexclude = ["12"]\n'))
    space = space_reader.read(file)
    assert (space.groups, space.exclude) == ({"8*": "same"}, ["12"])
    file.write_text(TOML.replace(old, new.replace("true", '"erk"')))
    assert space_reader.read(file).groups == {"8*": "erk"}
    file.write_text(TOML.replace(old, new.replace("true", "false")))
    assert space_reader.read(file).groups == {}
    assert dict(space.ratios)["8*"] == Range(0.5, 0.999)


def test_the_whole_file(file: Path) -> None:
    file.write_text(TOML)
    space = space_reader.read(file)
    assert (space.name, space.source) == ("toy", str(file))
    assert (space.model, space.data, space.weights, space.workers_per_trial) == ("lenet5", "mnist", None, 1)
    assert space.parameters == {
        "pruner": Choice(("mag", "taylor1")),
        "schedule": "linear",
        "rounds": Range(2, 8),
        "lr": Range(0.005, 0.1, log=True),
        "momentum": 0.9,
    }
    assert space.ratios == [("8", Range(0.5, 0.999)), ("1*", Choice((0.5, 0.7))), ("*", 0.25)]
    assert (space.acc_tradeoff, space.budget) == (1, 7)
    assert space.refine == Refinement(share=0.25)
    assert space.initial_params(LENET) == [{"ratio/8": 0.9, "rounds": 4}, {"ratio/8": 0.6, "pruner": "mag"}]


def test_mode_global_groups_all_layers(file: Path) -> None:
    least = 'task = {model = "lenet5", data = "mnist"}\nspace.mode = "global"\nspace.ratio."*" = '
    file.write_text(least + "{low = 0.5, high = 0.99}")
    params = space_reader.read(file).parameters_for(LENET)
    assert [name for name, domain in params.items() if isinstance(domain, Range)] == ["group/*"]
    file.write_text(least + "{low = 0.5, high = 0.99, group = true}")
    assert fault(lambda: space_reader.read(file)).endswith("leave out group")
    file.write_text(least + '{low = 0.5, high = 0.99}\nspace.pruner_scope = "layer"')
    assert fault(lambda: space_reader.read(file)).endswith('leave out pruner_scope = "layer"')


def test_the_shortest_space(file: Path) -> None:
    file.write_text('task = {model = "lenet5", data = "mnist"}\nspace.ratio."*" = 0.5')
    space = space_reader.read(file)
    assert (space.parameters, space.ratios) == ({"pruner": "mag"}, [("*", 0.5)])
    assert (space.acc_tradeoff, space.budget, space.refine) == (0.5, 100, Refinement())
    assert list(space.initial_points) == []


TOP = ", ".join(["task", "space", "goal", "refine", "gradual", "initial", "features"])
SPACE = ", ".join(["ratio", "pruner_scope", "exclude", *PARAMETERS])
PRUNERS = ", ".join(criteria)
FAULTS = [
    ("pruner =", 'exclude = "8"\npruner =', "space.exclude must be a list of layers or patterns, got '8'"),
    (
        "momentum = 0.9",
        'granularity = "row"',
        "space.granularity: unknown granularity 'row'; known: weight, filter",
    ),
    ("momentum = 0.9", 'mode = "net"', "space.mode: must be one of layer, global, got 'net'"),
    ("momentum = 0.9", 'mode = ["layer", "global"]', "space.mode takes one value, not a choice: layer, global"),
    ("momentum = 0.9", 'mode = "global"', 'mode = "global" searches one ratio for all layers; give'),
    (
        "high = 0.999",
        "high = 0.999, group = 1",
        "space.ratio.'8'.group must be true, false or one of same, erk",
    ),
    # unknown keys, at every level
    ("[goal]", "[gaol]", f"unknown key 'gaol'; did you mean goal? known: {TOP}"),
    ("data =", "date =", "unknown key 'task.date'; did you mean data? known: model, data, weights"),
    ("momentum", "momentun", f"unknown key 'space.momentun'; did you mean momentum? known: {SPACE}"),
    (
        'data = "mnist"',
        'data = "mnist"\noptimizer = "torch.optim:SGD(momentum=0.5)"',
        "space.momentum is of the built-in SGD; give it in the optimizer's address, as torch.optim:AdamW(weight_decay",
    ),
    (
        'data = "mnist"',
        'data = "mnist"\nworkers_per_trial = 0',
        "task.workers_per_trial must be a whole number in [1, inf), got 0",
    ),
    (
        'data = "mnist"',
        'data = "mnist"\noptimizer = "torch.optim:Adam"\nfit = "a:b"',
        "task.optimizer with fit, which makes its own optimizer; leave one of them out",
    ),
    (
        "momentum = 0.9",
        'lr_schedule = "cosin"',
        "space.lr_schedule: unknown learning-rate schedule 'cosin'; did you mean cosine? known: cos",
    ),
    (
        "budget",
        "trials",
        "unknown key 'goal.trials'; did you mean budget? known: acc_tradeoff, budget, at_most",
    ),
    ("share", "part", "unknown key 'refine.part'; known: share, rounds, steps, lr"),
    ("log =", "logarithmic =", "space.lr: unknown key 'logarithmic'; known: low, high, log, step"),
    (
        "rounds = 4",
        "round = 4",
        "unknown key 'initial.point 1.round'; did you mean rounds? known: ratio, pruner",
    ),
    # missing keys
    ('model = "lenet5"', "", "task.model is missing"),
    ('data = "mnist"', "", "task.data is missing"),
    ('"8" = {low = 0.5, high = 0.999}\n"1*" = [0.5, 0.7]\n"*" = 0.25\n', "", "[space.ratio] must be a table with at"),
    ("ratio = 0.9", "", "initial.point 1 must hold `ratio`, a number or a table of layers"),
    ("low = 2, high = 8", "low = 2", "space.rounds: a range needs both low and high"),
    # values out of bounds
    ('"lenet5"', "5", "task.model must be text, got 5"),
    ('"lenet5"', '""', "task.model must be text, got ''"),
    ("low = 2, high = 8", "low = 9, high = 8", "space.rounds: low 9 is above high 8; swap them"),
    ("low = 2, high = 8", "low = 0, high = 8", "space.rounds.low: must be a whole number in [1, inf), got 0"),
    ("low = 2, high = 8", "low = 2, high = 8.5", "space.rounds.high: must be a whole number in [1, inf), got 8.5"),
    ("low = 0.005", "low = 0", "space.lr: a logarithmic range must begin above 0, got low 0"),
    ("momentum = 0.9", "momentum = 1.0", "space.momentum: must be a number in [0, 1), got 1.0"),
    ("momentum = 0.9", "momentum = true", "space.momentum: must be a number in [0, 1), got True"),
    ("momentum = 0.9", "weight_decay = inf", "space.weight_decay: must be a number in [0, inf), got inf"),
    ("momentum = 0.9", "distill = nan", "space.distill: must be a number in [0, 1], got nan"),
    ("high = 0.999", "high = 1.0", "space.ratio.'8'.high: must be a number in [0, 1), got 1.0"),
    ('"*" = 0.25', '"*" = -0.25', "space.ratio.'*': must be a number in [0, 1), got -0.25"),
    ("[0.5, 0.7]", "[0.5, 70]", "space.ratio.'1*': must be a number in [0, 1), got 70"),
    ("[0.5, 0.7]", "[]", "space.ratio.'1*': the list of choices is empty; give at least one value"),
    ('["mag", "taylor1"]', "[]", "space.pruner: the list of choices is empty; give at least one value"),
    ('"taylor1"]', '"taylor9"]', f"space.pruner: unknown pruner 'taylor9'; did you mean taylor2? known: {PRUNERS}"),
    ('"taylor1"]', '"no_lab:f(1)"]', "space.pruner: 'no_lab:f(1)': cannot read its arguments"),
    ('"taylor1"]', "3]", f"space.pruner: unknown pruner '3'; known: {PRUNERS}"),
    ('"linear"', '"square"', "space.schedule: unknown schedule 'square'; known: linear, cubic, geometric, one-shot"),
    ('"linear"', "2020-01-01", "space.schedule: must be text, a number or true or false, got datetime.date"),
    ("acc_tradeoff = 1", "acc_tradeoff = -1", "goal.acc_tradeoff must be a number in [0, 100], got -1"),
    ("budget = 7", "at_most = 0.5", "goal.at_most must be a table of costs and metrics, like {macs = 0.5}"),
    ("budget = 7", "at_most = {flops = 0.5}", "unknown key 'goal.at_most.flops'; known: macs, bytes"),
    ("budget = 7", "at_most = {macs = 0}", "goal.at_most.macs must be a number in [1e-09, inf), got 0"),
    (
        "budget = 7",
        'objectives = ["flops"]',
        "goal.objectives must be a list of costs, macs, bytes, latency, latency_ms, each once",
    ),
    (
        "budget = 7",
        "objectives = [[]]",
        "goal.objectives must be a list of costs, macs, bytes, latency, latency_ms, each once",
    ),
    ("budget = 7", "budget = 0", "goal.budget must be a whole number in [1, inf), got 0"),
    ("share = 0.25", "share = 0.95", "refine.share must be a number in [0, 0.9], got 0.95"),
    ("share = 0.25", "rounds = 0.5", "refine.rounds must be a whole number in [1, inf), got 0.5"),
    ("share = 0.25", "steps = 0", "refine.steps must be a whole number in [1, inf), got 0"),
    ("share = 0.25", 'lr = "fast"', "refine.lr must be a number in [0, inf), got 'fast'"),
    # initial points
    ("ratio = 0.9", "ratio = 1.0", "initial.point 1.ratio: must be a number in [0, 1), got 1.0"),
    ("ratio = 0.9", "ratio = [0.9]", "initial.point 1.ratio: must be text, a number or true or false, got [0.9]"),
    ('"10" = 0.5', '"10" = "x"', "initial.point 2.ratio.'10': must be a number in [0, 1), got 'x'"),
    ("rounds = 4", "rounds = 2.5", "initial.point 1.rounds: must be a whole number in [1, inf), got 2.5"),
    ('pruner = "mag"', 'pruner = "max"', f"initial.point 2.pruner: unknown pruner 'max'; known: {PRUNERS}"),
    # a list in place of a table
    ("[goal]", "[[goal]]", "[goal] must be a table"),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_faults(file: Path, old: str, new: str, message: str) -> None:
    assert old in TOML
    file.write_text(TOML.replace(old, new, 1))
    assert fault(lambda: space_reader.read(file)).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "[task] must be a table with at least one key"),
        ("task = 3", "[task] must be a table with at least one key"),
        ('[task]\nmodel = "a"', "[space] must be a table with at least one key"),
        ('[task]\nmodel = "a"\n[space]\nrounds = 3', "[space.ratio] must be a table with at least one key"),
        ('[task]\nmodel = "a"\n[space]\nratio = 0.5', "[space.ratio] must be a table with at least one key"),
        ("x = " + "[" * 5000, "not valid TOML"),
        ("x = " + "1" * 5000, "not valid TOML"),
        ("x = 1\nx = 2", "not valid TOML"),
        ("x = {low = 1,", "not valid TOML"),
    ],
)
def test_faulty_files(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    assert fault(lambda: space_reader.read(file)).startswith(f"{file}: {message}")


@pytest.mark.parametrize("points", ["3", "0.5", "true", '"abc"', "{ratio = 0.5}", "2020-01-01"])
def test_initial_points_that_are_no_list(file: Path, points: str) -> None:
    file.write_text(TOML.partition("[[initial.point]]")[0] + f"\n[initial]\npoint = {points}\n")
    assert fault(lambda: space_reader.read(file)).startswith(
        f"{file}: initial.point must be a list of tables; head each one [["
    )


def test_a_pattern_that_matches_no_layer(file: Path) -> None:
    file.write_text(TOML.replace('"1*"', '"conv*"'))
    message = fault(lambda: space_reader.read(file).parameters_for(LENET))
    assert message.startswith(
        f"{file}: space.ratio.'conv*' matches no layer of lenet5; layers that can be pruned: 1, 4,"
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert fault(lambda: space_reader.read(binary)) == f"{binary}: not a text file; a space is TOML in UTF-8"
    missing = tmp_path / "missing.toml"
    assert fault(lambda: space_reader.read(missing)) == f"{missing}: cannot read the space (No such file or directory)"
    assert fault(lambda: space_reader.read(tmp_path)) == f"{tmp_path}: cannot read the space (Is a directory)"


# Where spaces are


def test_a_space_by_name_or_by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search_spaces").mkdir()
    mine = tmp_path / "search_spaces" / "mine.toml"
    mine.write_text(TOML)
    assert space_reader.locate("mine") == mine
    assert space_reader.locate("search_spaces/mine.toml") == mine
    assert space_reader.locate("other/none.toml") == tmp_path / "other" / "none.toml"
    message = fault(lambda: space_reader.locate("yours"))
    assert message.startswith("unknown space 'yours'; known: ")
    assert "mine" in message
