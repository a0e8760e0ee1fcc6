"""What to prune one model to: layers and ratios by hand, a .conf file, or the conf that comes with the model."""

from pathlib import Path

from tune_prune.common.errors import UserError
from tune_prune.pruning import masks
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.tasks.models import build

CONFS = Path(__file__).parent / "confs"
"""The built-in models' own configurations, one `<model>.conf` each."""


def own_conf(model: str) -> Path:
    """The conf that comes with a built-in model."""
    path = CONFS / f"{model}.conf"
    if not path.is_file():
        raise UserError(f"model {model!r} has no conf of its own; give --conf FILE, or --layer and --ratio")
    return path


def wanted_of(layers: list[str], ratios: list[float], path: Path | None, model: str, mode: str) -> tuple[Conf, str]:
    """What to prune, and what messages call it: layers by hand, else a conf file, else the model's own conf.

    In mode "global" one ratio without layers is that of all of them.
    """
    if not layers and len(ratios) == 1 and mode == "global" and path is None:
        labels = masks.prunable(build(model))
        return Conf(dict.fromkeys(labels, _checked(ratios[0], "all layers"))), "--ratio"
    if not layers and not ratios:
        path = path or own_conf(model)
        return conf.read(path), str(path)
    if path is not None:
        raise UserError("--conf and --layer exclude each other; leave one out")
    if len(layers) != len(ratios):
        raise UserError(f"--layer and --ratio go in pairs, got {len(layers)} and {len(ratios)}")
    for label, ratio in zip(layers, ratios, strict=True):
        if layers.count(label) > 1:
            raise UserError(f"--layer {label} is named {layers.count(label)} times; name each layer once")
        _checked(ratio, f"layer {label}")
    return Conf(dict(zip(layers, ratios, strict=True))), "--layer"


def _checked(ratio: float, of: str) -> float:
    if not 0 <= ratio < 1:
        raise UserError(f"--ratio must be in [0, 1), got {ratio:g} for {of}")
    return ratio
