from pathlib import Path

import pytest
from toys import fault

from tune_prune.pruning import masks
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.tasks.models import models
from tune_prune.workflows import prune_target
from tune_prune.workflows.prune_target import choose_target, model_conf


def test_by_hand_by_file_and_by_model(tmp_path: Path) -> None:
    assert choose_target(["2"], [0.5], None, "x", "layer") == (Conf({"2": 0.5}), "--layer")
    path = tmp_path / "a.conf"
    conf.write(path, Conf({"2": 0.5}, {"2": "random"}))
    assert choose_target([], [], path, "x", "layer") == (Conf({"2": 0.5}, {"2": "random"}), str(path))
    own = model_conf("lenet5")
    assert choose_target([], [], None, "lenet5", "layer") == (conf.read(own), str(own))


def test_one_ratio_for_the_whole_network() -> None:
    found, source = choose_target([], [0.5], None, "lenet5", "global")
    assert (found.ratios, source) == (dict.fromkeys(masks.prunable(models["lenet5"]()), 0.5), "--ratio")
    assert fault(lambda: choose_target([], [0.5], None, "lenet5", "layer")).startswith(
        "--layer and --ratio go in pairs"
    )


@pytest.mark.parametrize("path", sorted(prune_target.CONFS.glob("*.conf")))
def test_every_conf_that_comes_with_a_model_fits_it(path: Path) -> None:
    masks.require_layers(models[path.stem](), conf.read(path).ratios, str(path))


def test_a_model_without_a_conf() -> None:
    assert fault(lambda: model_conf("my_lab:net")) == (
        "model 'my_lab:net' has no conf of its own; give --conf FILE, or --layer and --ratio"
    )
