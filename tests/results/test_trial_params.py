from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.pruning.plan import Plan
from tune_prune.results import records
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import GROUP, PRUNER, RATIO, TrialParams

labels = st.sampled_from(["1", "8", "conv1", "layer1.0.conv1", "2/conv1", "pruner", "ratio/8"]) | st.text()
ratios = st.floats(0, 1, exclude_max=True)
names = st.text(min_size=1)
scalars = st.text() | st.booleans() | st.integers() | st.floats(allow_nan=False)
other_names = (st.sampled_from([f.name for f in fields(Plan)]) | st.text()).filter(
    lambda name: name != "pruner" and not name.startswith((RATIO, GROUP, PRUNER))
)
pruners = st.one_of(
    st.fixed_dictionaries({"pruner": st.none() | names}),
    st.fixed_dictionaries({"pruners": st.dictionaries(labels, names, max_size=3)}),
)
trial_params = st.builds(
    lambda pruner, **others: TrialParams(**pruner, **others),
    pruner=pruners,
    ratios=st.dictionaries(labels, ratios, max_size=4),
    groups=st.dictionaries(labels, ratios, max_size=2),
    training=st.dictionaries(other_names, scalars, max_size=4),
)


@given(trial_params)
def test_columns_and_back(params: TrialParams) -> None:
    assert TrialParams.from_columns(params.to_columns()) == params


@given(trial_params)
def test_a_column_for_each_parameter(params: TrialParams) -> None:
    columns = params.to_columns()
    assert list(columns) == [
        *(f"group/{pattern}" for pattern in params.groups),
        *(f"ratio/{label}" for label in params.ratios),
        *(["pruner"] if params.pruner is not None else []),
        *(f"pruner/{label}" for label in params.pruners),
        *params.training,
    ]


@given(trial_params)
def test_a_record_on_disk_and_back(tmp_path_factory: pytest.TempPathFactory, params: TrialParams) -> None:
    run_dir = tmp_path_factory.getbasetemp() / "run"
    records.write(run_dir, TrialRecord(3, "complete", params, {}))
    assert records.read(records.record_path(run_dir, 3)).params == params


@given(trial_params, st.dictionaries(other_names, scalars, max_size=3))
def test_with_training_changes_the_training_alone(params: TrialParams, training: dict[str, object]) -> None:
    before = dict(params.training)
    changed = params.with_training(**training)  # type: ignore[arg-type]
    assert changed.training == before | training
    assert (changed.ratios, changed.groups) == (params.ratios, params.groups)
    assert (changed.pruner, changed.pruners) == (params.pruner, params.pruners)
    assert params.training == before


def test_whole_numbers_of_the_columns_become_ratios() -> None:
    params = TrialParams.from_columns({"ratio/8": 0, "group/*": 0, "pruner": "mag"})
    assert isinstance(params.ratios["8"], float)
    assert isinstance(params.groups["*"], float)


def test_a_plan_with_one_pruner() -> None:
    columns = {"ratio/1": 0.5, "ratio/layer1.0.conv1": 0, "pruner": "taylor1", "rounds": 3, "lr": 0.2, "distill": 1}
    assert TrialParams.from_columns(columns).to_plan() == Plan(
        ratios={"1": 0.5, "layer1.0.conv1": 0.0},
        pruners={"1": "taylor1", "layer1.0.conv1": "taylor1"},
        rounds=3,
        lr=0.2,
        distill=1,
    )


def test_a_plan_with_a_pruner_for_each_layer() -> None:
    params = TrialParams({"1": 0.5, "8": 0.6}, pruners={"1": "mag", "8": "taylor1"})
    assert params.to_plan().pruners == {"1": "mag", "8": "taylor1"}


@given(st.dictionaries(labels, ratios), names)
def test_a_plan_has_a_pruner_for_each_ratio(layer_ratios: dict[str, float], name: str) -> None:
    one, each = TrialParams(layer_ratios, name), TrialParams(layer_ratios, pruners=dict.fromkeys(layer_ratios, name))
    assert one.to_plan() == each.to_plan() == Plan(layer_ratios, dict.fromkeys(layer_ratios, name))


def test_a_plan_leaves_out_what_is_not_its_field() -> None:
    params = TrialParams({"8": 0.9}, "mag", groups={"*": 0.9}, training={"rounds": 3, "not a field": 1})
    assert params.to_plan() == Plan({"8": 0.9}, {"8": "mag"}, rounds=3)
