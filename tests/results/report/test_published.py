from tune_prune.results.report import published
from tune_prune.tasks.models import models


def test_of_a_model_on_its_data_alone() -> None:
    assert published.find_published("lenet5", "mnist") == [("torch7-pruner 2016", 7.09, 0.94)]
    assert ("Han et al. 2015", 8.2, 1.59) in published.find_published("lenet_300_100", "mnist")
    assert published.find_published("lenet5", "toys:images") == []
    assert published.find_published("toys:mlp", "mnist") == []


def test_percents() -> None:
    for name in models:
        for one in published.find_published(name, "mnist"):
            assert 0 < one.kept < 100
            assert 0 < one.error < 5
