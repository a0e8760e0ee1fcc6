from toys import fault

from tune_prune.results.conf import Conf
from tune_prune.workflows.conf_notes import choose_named, read_noted


def test_notes_and_flags_together() -> None:
    conf = Conf({"2": 0.5}, notes={"granularity": "filter", "seed": 3})
    assert read_noted(conf, "a.conf", flags={"mode": "layer", "granularity": None}) == {
        "mode": "layer",
        "granularity": "filter",
    }
    assert fault(lambda: read_noted(conf, "a.conf", flags={"granularity": "weight"})) == (
        "a.conf: its ratios are for --granularity filter, not weight; leave --granularity out"
    )


def test_the_model_that_a_conf_notes_is_asked_for() -> None:
    bare, noted = Conf({"2": 0.5}), Conf({"2": 0.5}, notes={"model": "lab:net", "data": "mnist"})
    assert choose_named(bare, "a.conf", "--model", None, "lenet5") == "lenet5"
    assert choose_named(noted, "a.conf", "--data", None, "mnist") == "mnist"
    assert choose_named(noted, "a.conf", "--model", "lab:net", "lenet5") == "lab:net"
    assert choose_named(noted, "a.conf", "--model", "lenet5", "lenet5") == "lenet5"
    assert fault(lambda: choose_named(noted, "a.conf", "--model", None, "lenet5")) == (
        "a.conf: was made with --model lab:net, not lenet5; give --model, this one or another"
    )
    lost = Conf({"2": 0.5}, notes={"model": "Net (handed over from Python)"})
    assert fault(lambda: choose_named(lost, "a.conf", "--model", None, "lenet5")) == (
        "a.conf: its model came from Python as an object; name it with --model"
    )
