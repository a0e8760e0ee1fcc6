from pathlib import Path

import pytest
from toys import fault

from tune_prune import wanted
from tune_prune.pruning import masks
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.tasks.models import models
from tune_prune.wanted import own_conf, wanted_of


def test_by_hand_by_file_and_by_model(tmp_path: Path) -> None:
    assert wanted_of(["2"], [0.5], None, "x", "layer") == (Conf({"2": 0.5}), "--layer")
    path = tmp_path / "a.conf"
    conf.write(path, Conf({"2": 0.5}, {"2": "random"}))
    assert wanted_of([], [], path, "x", "layer") == (Conf({"2": 0.5}, {"2": "random"}), str(path))
    own = own_conf("lenet5")
    assert wanted_of([], [], None, "lenet5", "layer") == (conf.read(own), str(own))


def test_one_ratio_for_the_whole_network() -> None:
    found, source = wanted_of([], [0.5], None, "lenet5", "global")
    assert (found.ratios, source) == (dict.fromkeys(masks.prunable(models["lenet5"]()), 0.5), "--ratio")
    assert fault(lambda: wanted_of([], [0.5], None, "lenet5", "layer")).startswith("--layer and --ratio go in pairs")


@pytest.mark.parametrize("path", sorted(wanted.CONFS.glob("*.conf")))
def test_every_conf_that_comes_with_a_model_fits_it(path: Path) -> None:
    masks.require_layers(models[path.stem](), conf.read(path).ratios, str(path))


def test_a_model_without_a_conf() -> None:
    assert fault(lambda: own_conf("my_lab:net")) == (
        "model 'my_lab:net' has no conf of its own; give --conf FILE, or --layer and --ratio"
    )
