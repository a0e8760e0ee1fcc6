"""What a user may say of a task besides its model and data: loss, metric, preprocessing, training.

Every value is a name or an address, so that it can stand in a file and is found again in another process. Objects that
come from Python are kept under an address (`in_memory`).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tune_prune.common.entrypoints import describe_address, is_address
from tune_prune.common.errors import UserError, describe_unknown, format_names
from tune_prune.common.flags import Flag, check_settings, declared_settings, flag

TASK = "The task"
"""The panel of the flags of a task."""

BETTER = ("lower", "higher")
PRECISIONS = ("fp32", "tf32", "bf16")
AUGMENTS = ("none", "flip", "crop-flip", "affine")

DISTILL_SHARE = 0.5
"""The share of the loss that distillation has where a function for it is named, and no share."""

ADDRESS = "an address, package.module:function"


def _is_address(value: object) -> bool:
    return isinstance(value, str) and is_address(value)


def _are_addresses(values: Collection[object]) -> bool:
    return len(values) > 0 and not isinstance(values, str) and all(map(_is_address, values))


def split_addresses(text: str, option: str) -> tuple[str, ...]:
    """Splits addresses at the commas between them, not at those of their arguments."""
    return tuple(part.strip() for part in re.split(r",(?=\s*[\w.]+:\w)(?![^(]*\))", text))


def _task_flag(help: str, check: Callable[[Any], bool] = _is_address, rule: str = ADDRESS) -> Mapping[str, Flag]:
    """Declares a flag of a task; a search that goes on keeps what it was begun with."""
    return flag(help, TASK, check=check, rule=rule, fixed_on_resume=True)


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How a task differs from the default: classification by cross-entropy and misclassified percent, SGD, float32.

    None stands for the default of a key. Raises `UserError` where a value cannot be right; nothing is imported.
    """

    loss: str | None = field(
        default=None,
        metadata=_task_flag("Address of loss(model, batch), or of a loss class of torch.nn.  [default: cross-entropy]"),
    )
    metric: str | None = field(
        default=None,
        metadata=_task_flag("Address of metric(model, batches), or of a torchmetrics class.  [default: error]"),
    )
    better: str | None = field(
        default=None,
        metadata=_task_flag(
            "lower or higher: which values of --metric are better.  [default: lower, or as torchmetrics says]",
            lambda name: name in BETTER,
            "lower or higher",
        ),
    )
    distill: str | None = field(
        default=None, metadata=_task_flag("Address of distill(model, teacher, batch).  [default: by the outputs]")
    )
    optimizer: str | None = field(
        default=None,
        metadata=_task_flag(
            "Address of optimizer(parameters, lr), as torch.optim:AdamW(weight_decay=0.01).  [default: SGD]",
            rule="an address, as torch.optim:AdamW(weight_decay=0.01)",
        ),
    )
    fit: str | None = field(
        default=None,
        metadata=_task_flag(
            "Address of fit(model, batches, steps, lr, after_step), a training loop.  [default: the built-in loop]"
        ),
    )
    precision: str | None = field(
        default=None,
        metadata=_task_flag(
            "fp32, tf32 or bf16.  [default: fp32]", lambda name: name in PRECISIONS, "fp32, tf32 or bf16"
        ),
    )
    transform: str | None = field(
        default=None,
        metadata=_task_flag(
            "Of torchvision's images: weights, as the model's weights want them, or the address of a transform.",
            lambda name: name == "weights" or _is_address(name),
            f"weights, or {ADDRESS}",
        ),
    )
    augment: str | None = field(
        default=None,
        metadata=_task_flag(
            "none, flip, crop-flip, affine, or the address of a function of a batch of inputs.  [default: none]",
            lambda name: name in AUGMENTS or _is_address(name),
            f"none, flip, crop-flip, affine, or {ADDRESS}",
        ),
    )

    further_metrics: tuple[str, ...] | None = field(
        default=None,
        metadata=flag(
            "Addresses of metrics that are measured beside --metric, for limits of [goal]: mine:f1,mine:ece.",
            TASK,
            parse=split_addresses,
            check=_are_addresses,
            rule="addresses, package.module:function, separated by commas",
            fixed_on_resume=True,
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.fit is not None and self.optimizer is not None:
            raise UserError("--optimizer with --fit, which makes its own optimizer; leave one of them out")

    @property
    def given(self) -> Mapping[str, Any]:
        """The values that are not the default, by key."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}

    def override(self, other: "TaskSettings") -> "TaskSettings":
        """These settings, but for those that `other` gives; `better` belongs to the metric, and goes with it."""
        mine = replace(self, better=None) if other.metric not in (None, self.metric) else self
        return replace(mine, **other.given)

    @property
    def described(self) -> dict[str, Any]:
        """The same as people read them, with the names of what came as an object in place of addresses."""
        return {
            key: describe_address(value) if isinstance(value, str) else list(map(describe_address, value))
            for key, value in self.given.items()
        }

    @property
    def texts(self) -> list[str]:
        """Every name and address that is given."""
        return [text for value in self.given.values() for text in ([value] if isinstance(value, str) else value)]

    @property
    def is_default_objective(self) -> bool:
        """Whether loss, metric and distillation are those of classification."""
        return self.loss is None and self.metric is None and self.distill is None


def read_settings(raw: object, prefix: str) -> TaskSettings:
    """Makes settings of a file's values, by key; a `UserError` names the key after `prefix`, as "a.toml: task.loss"."""
    known = declared_settings(TaskSettings)
    if not isinstance(raw, Mapping):
        raise UserError(f"{prefix.rstrip('.')} must be a table of {format_names(known)}, got {raw!r}")
    for key, value in raw.items():
        if key not in known:
            raise UserError(f"{prefix}{key}: {describe_unknown('key', key, known)}")
        if key == "further_metrics":
            if not isinstance(value, list | tuple) or not _are_addresses(value):
                raise UserError(f"{prefix}{key} must be a list of addresses, package.module:function, got {value!r}")
        elif not isinstance(value, str) or not known[key].flag.check(value):
            raise UserError(f"{prefix}{key} must be {known[key].flag.rule}, got {value!r}")
    if "better" in raw and "metric" not in raw:
        raise UserError(f"{prefix}better without {prefix.rpartition(' ')[2]}metric; name the metric as well")
    if "optimizer" in raw and "fit" in raw:
        raise UserError(f"{prefix}optimizer with fit, which makes its own optimizer; leave one of them out")
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    return TaskSettings(**{**raw, **lists})


MEASURING = ("loss", "metric", "better", "precision", "transform")
"""The keys that decide what is measured of a model; all others decide how one is trained."""

SEARCHING = ("further_metrics",)
"""The keys that only a search uses."""

DEFAULT = TaskSettings()
"""Classification of inputs with labels."""
