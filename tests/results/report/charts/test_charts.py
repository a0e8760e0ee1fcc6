import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest
from pandas import DataFrame

from tune_prune.results import pareto
from tune_prune.results.comparison import hypervolume_within
from tune_prune.results.constraints import Constraints
from tune_prune.results.front_picture import FrontPicture, describe_front
from tune_prune.results.published import Published, find_published
from tune_prune.results.report.charts import layers, search
from tune_prune.results.report.charts.front import draw_front, draw_tests
from tune_prune.results.report.charts.labels import place_labels
from tune_prune.results.report.charts.parallel import draw_trials
from tune_prune.results.report.charts.style import list_layers
from tune_prune.tasks.models import models

LIMIT, DENSE = 2.0, 1.0
POINTS = DataFrame(
    {
        "trial": [0, 0, 1, 2],
        "round": [1, 2, 1, 1],
        "compression": [0.5, 0.9, 0.8, 0.99],
        "factor": [2.0, 10.0, 5.0, 100.0],
        "val_error": [1.1, 1.4, 1.2, 9.0],
        "feasible": [True, True, True, False],
        "state": ["complete", "complete", "stopped", "failed"],
        "ratio/<b>a": [0.5, 0.9, 0.8, 0.99],
        "ratio/2": [0.1, 0.2, 0.3, 0.4],
        "pruner/<b>a": ["mag", "mag", "mag", "l1"],
        "pruner/2": ["mag", "taylor1", "mag", "l1"],
    }
)
MEMBERS = POINTS.iloc[[0, 2, 1]].assign(
    id=["001", "002", "003"], test_error=[1.2, math.nan, 1.6], test_error_low=[1.0, math.nan, 1.3],
    test_error_high=[1.5, math.nan, 2.1],
)  # fmt: skip


def describe(members: DataFrame = MEMBERS, limit: float = LIMIT, dense: float = DENSE, **options: Any) -> FrontPicture:
    return describe_front(POINTS, members, limit, dense, **options)


def front_figure(
    members: DataFrame = MEMBERS, limit: float = LIMIT, dense: float = DENSE, others: Mapping[str, DataFrame] = {}
) -> Any:
    picture = describe(members, limit, dense, others=[*others.values()])
    return draw_front(picture, list_layers(POINTS), others)


def figure_of_tests(published: Sequence[Published] = (), dense_test: float = math.nan) -> Any:
    picture = describe(dense_test=dense_test, published=published)
    return draw_tests(picture, list_layers(POINTS), published)


def drawn(figure: object) -> dict[str, object]:
    """The traces by their names, without counts."""
    return {trace.name.split(" (")[0]: trace for trace in figure.data}  # type: ignore[attr-defined]


def test_every_round_is_there_once_as_what_it_is() -> None:
    found = drawn(front_figure())
    assert list(found["round within the limit"].x) == [2.0, 10.0]
    assert list(found["round of a trial that was stopped"].x) == [5.0]
    far = found["far above the limit, drawn at the edge"]
    assert far.customdata[:, 3].tolist() == [9.0]
    assert far.y[0] < front_figure().layout.yaxis.range[1]
    front = found["front, validation error"]
    assert (list(front.x), list(front.y), list(front.ids)) == ([2, 5, 10], [1.1, 1.2, 1.4], ["001", "002", "003"])
    tested = drawn(figure_of_tests())["front, test error, 95 % interval"]
    assert (list(tested.y), list(tested.ids)) == ([1.2, 1.6], ["001", "003"])
    assert list(tested.error_y.array) == pytest.approx([0.3, 0.5])
    assert list(tested.error_y.arrayminus) == pytest.approx([0.2, 0.3])


def test_a_point_knows_what_its_conf_is_made_of() -> None:
    point = drawn(front_figure())["round within the limit"]
    assert list_layers(POINTS) == ["<b>a", "2"]
    assert point.customdata[1].tolist() == pytest.approx([0, 2, 10.0, 1.4, 0.9, 0.2])
    assert list(point.text) == ["mag", "mag,taylor1"]
    assert "&lt;b&gt;a: " in point.hovertemplate
    assert "<b>a" not in point.hovertemplate


def test_what_there_is_to_compare_with() -> None:
    others = {"random <i>": MEMBERS[:1]}
    assert list(drawn(front_figure(others=others))["random &lt;i&gt;"].x) == [2.0]
    published = drawn(figure_of_tests([Published("Han 2015", 8.0, 1.6)]))["published, test error"]
    assert (list(published.x), published.text[0].strip("&nbsp;")) == ([12.5], "Han 2015")


def test_knee_and_best_are_named_in_both_charts() -> None:
    names = [note.text for note in front_figure().layout.annotations if note.showarrow]
    assert names == ["<b>knee 5.0x</b>", "<b>best 10.0x</b>"]
    assert [note.text for note in figure_of_tests().layout.annotations if note.showarrow] == ["<b>best 10.0x</b>"]


@pytest.mark.parametrize("members", [MEMBERS, MEMBERS[:0]])
@pytest.mark.parametrize(("limit", "dense"), [(LIMIT, DENSE), (math.nan, math.nan)])
def test_the_front_is_in_sight(members: DataFrame, limit: float, dense: float) -> None:
    low, high = front_figure(members, limit, dense).layout.yaxis.range
    assert 0 <= low < 1.1
    assert high > 1.4


def test_what_layers_keep() -> None:
    found = drawn(layers.draw_kept(MEMBERS))
    assert list(found["layer &lt;b&gt;a"].y) == pytest.approx([50, 20, 10])
    many = pd.concat([MEMBERS, DataFrame({f"ratio/x{i}": [0.5] * 3 for i in range(20)}, index=MEMBERS.index)], axis=1)
    (heat,) = layers.draw_kept(many).data
    assert heat.z.shape == (22, 3)
    assert heat.z[0].tolist() == pytest.approx([math.log10(50), math.log10(20), 1])


def test_hypervolume_trial_by_trial() -> None:
    (line,) = search.draw_hypervolume(POINTS, Constraints(2.0), {}).data
    first = [(0.5, 1.1), (0.9, 1.4)]
    expected = [0, pareto.hypervolume(first, 2.0), pareto.hypervolume([*first, (0.8, 1.2)], 2.0)]
    assert list(line.x) == [0, 1, 2, 3]
    assert list(line.y) == pytest.approx([*expected, expected[-1]])
    assert hypervolume_within(MEMBERS, Constraints(2.0)) == pytest.approx(expected[-1])
    assert hypervolume_within(MEMBERS, Constraints(math.nan)) == 0


def test_shares_and_sensitivity() -> None:
    (bar,) = search.draw_shares({"lr": 0.2, "<x>": 0.8}).data
    assert ([name.strip() for name in bar.y], list(bar.x)) == (["learning rate (lr)", "&lt;x&gt;"], [20, 80])
    measured = DataFrame({"layer": ["8", "8", "10"], "pruner": "mag", "ratio": [0.9, 0.5, 0.5], "val_error": [3, 1, 2]})
    found = drawn(layers.draw_sensitivity(measured, 0.6))
    assert list(found["layer 8, mag"].x) == [0.5, 0.9]
    assert list(found["layer 8, mag"].y) == [1, 3]
    (label,) = layers.draw_sensitivity(measured, 0.1).layout.annotations
    assert (label.y, label.text) == (-1, "dense 0.10 %")  # a logarithmic axis takes logarithms
    assert levels(front_figure(limit=2.0, dense=math.nan)) == [(2, "limit 2.00 %")]


def levels(figure: Any) -> list[tuple[float, str]]:
    return [(label.y, label.text) for label in figure.layout.annotations if not label.showarrow]


def test_each_chart_has_the_dense_value_of_its_own_data() -> None:
    assert levels(front_figure()) == [(1, "dense 1.00 %"), (2, "limit 2.00 %")]
    assert levels(figure_of_tests(dense_test=1.1)) == [(1.1, "dense 1.10 %")]
    assert levels(figure_of_tests()) == []


def test_published_results_are_of_a_model_on_its_data_alone() -> None:
    assert find_published("lenet5", "mnist") == [("torch7-pruner 2016", 7.09, 0.94)]
    assert ("Han et al. 2015", 8.2, 1.59) in find_published("lenet_300_100", "mnist")
    assert find_published("lenet5", "toys:images") == []
    assert find_published("toys:mlp", "mnist") == []


def test_published_percents() -> None:
    for name in models:
        for one in find_published(name, "mnist"):
            assert 0 < one.kept < 100
            assert 0 < one.error < 5


TRIALS = DataFrame(
    {
        "trial": range(4), "state": "complete", "ratio/8": [0.9, 0.99, 0.5, 0.8],
        "pruner": ["mag", "<l1>", "mag", "mag"], "lr": [0.1, 0.2, 0.3, 0.4], "rounds": 2, "final": [1, None, 1, 1],
        "compression": [0.9, 0.99, 0.5, 0.8], "val_error": [1.0, 3.0, 0.9, 0.8], "feasible": [True, False, True, True],
    }
)  # fmt: skip


def test_a_trial_is_a_line_across_its_results_and_the_parameters_that_differ() -> None:
    (lines,) = draw_trials(TRIALS, Constraints(2.0), ["lr"]).data
    axes = {axis.label: axis for axis in lines.dimensions}
    assert [*axes] == [
        "times fewer weights", "validation error, %", "learning rate (lr)", "kept, %: layer 8", "pruner",
    ]  # fmt: skip
    assert list(axes["times fewer weights"].values) == pytest.approx([1, 2, math.log10(2), math.log10(5)])
    assert list(axes["kept, %: layer 8"].values) == pytest.approx([1, 0, math.log10(50), math.log10(20)])
    assert (list(axes["pruner"].ticktext), list(axes["pruner"].values)) == (["<l1>", "mag"], [1, 0, 1, 1])
    assert list(lines.line.color) == [1, 0, 1, 1]


def test_there_is_no_line_without_trials_or_parameters_that_differ() -> None:
    assert draw_trials(TRIALS[:2], Constraints(2.0), []) is None
    assert draw_trials(TRIALS[["trial", "state", "rounds", "compression", "val_error"]], Constraints(2.0), []) is None
    assert draw_trials(TRIALS.assign(val_error=None), Constraints(2.0), []) is None


def test_names_stand_where_they_cross_neither_points_nor_each_other() -> None:
    points = [(10.0, 1.0), (10.5, 1.0), (99.0, 1.0), (1.01, 1.5)]
    names = ["Han et al. 2015", "Sparse momentum 2019", "GSM 2019", "LAMP 2021"]
    assert place_labels(names, points, points, (1.0, 100.0), (0.0, 2.0)) == [
        "middle left", "middle right", "middle left", "middle right",
    ]  # fmt: skip
    crowd = [(10.0, 1.0)] * 9
    assert "" in place_labels(["Sparse momentum 2019"] * 9, crowd, crowd, (1.0, 100.0), (0.0, 2.0))
