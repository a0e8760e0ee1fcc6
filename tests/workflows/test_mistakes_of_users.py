"""What a user gets wrong in a task is one line that names it, its file and line, before anything is written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mistakes_of_users
import pytest
import tasks_of_users
from searches import Trials
from tasks_of_users import rows, trained_regressor
from toys import fault

import tune_prune
from tune_prune.cli.prune import parse_distill

MINE = "tasks_of_users:mean_squared"
BASE = {
    "model": "tasks_of_users:trained_regressor",
    "data": "tasks_of_users:rows",
    "loss": MINE,
    "metric": "tasks_of_users:rmse",
}
HERE = "mistakes_of_users"

Case = tuple[dict[str, Any], str]
CASES: dict[str, Case] = {
    "loss, no scalar": (
        {"loss": "tasks_of_users:no_scalar"},
        r"loss 'tasks_of_users:no_scalar' \(tasks_of_users.py:\d+\) returned a tensor \[2, 1\]; it must return a sca",
    ),
    "loss, a number": (
        {"loss": f"{HERE}:number"},
        r"loss 'mistakes_of_users:number' \(mistakes_of_users.py:\d+\) returned float; it must return a scalar tensor",
    ),
    "loss, no gradient": (
        {"loss": "tasks_of_users:no_gradient"},
        r"loss 'tasks_of_users:no_gradient' \(tasks_of_users.py:\d+\) returned a tensor without a gradient; compute it",
    ),
    "loss, infinite": (
        {"loss": f"{HERE}:infinite"},
        r"loss 'mistakes_of_users:infinite' \(mistakes_of_users.py:\d+\): the training loss became inf .* must be fi",
    ),
    "loss, fails": (
        {"loss": "tasks_of_users:missing_key"},
        r"loss 'tasks_of_users:missing_key' fails at tasks_of_users.py:\d+, `return batch\[\"absent\"\]` \(TypeError: ",
    ),
    "loss, arguments": (
        {"loss": f"{HERE}:one_argument"},
        r"loss 'mistakes_of_users:one_argument' \(mistakes_of_users.py:\d+\) fails \(TypeError: one_argument\(\) tak",
    ),
    "metric, text": (
        {"metric": "tasks_of_users:text"},
        r"metric 'tasks_of_users:text' \(tasks_of_users.py:\d+\) returned str; it must return a number",
    ),
    "metric, a tensor": (
        {"metric": f"{HERE}:metric_of_a_tensor"},
        r"metric '.*:metric_of_a_tensor' \(mistakes_of_users.py:\d+\) returned a tensor \[\d+, 1\]; it must return a",
    ),
    "metric, NaN": (
        {"metric": f"{HERE}:metric_of_no_number"},
        r"metric '.*:metric_of_no_number' \(mistakes_of_users.py:\d+\) is nan of the dense model .*; a finite number",
    ),
    "metric, fails": (
        {"metric": f"{HERE}:metric_that_fails"},
        r"metric '.*:metric_that_fails' fails at mistakes_of_users.py:\d+, `return len\(list\(batches\)\) / 0` \(Zer",
    ),
    "metric, not named": (
        {"metric": None},
        r"the error counts wrong classes, and the targets are torch.float32 \[2, 1\]",
    ),
    "better": (
        {"metric": "torchmetrics.classification:MulticlassConfusionMatrix(num_classes=2)"},
        r"does not say which values are better; give better: lower or higher",
    ),
    "better, by the metric's name": (
        {"metric": f"{HERE}:top1_accuracy"},
        r"metric 'mistakes_of_users:top1_accuracy': of top1_accuracy higher values are better; give better: higher",
    ),
    "distill, no rule": (
        {"loss": f"{HERE}:of_a_part", "distill": 0.5},
        r"loss 'mistakes_of_users:of_a_part' does not call the model Regressor itself, .* name a function distill",
    ),
    "distill, no tensors": (
        {"model": f"{HERE}:Opaque", "loss": f"{HERE}:opaque_loss", "metric": f"{HERE}:opaque_metric", "distill": 0.5},
        r"the model returns Opaque without floating-point tensors, which cannot be distilled; name a function distill",
    ),
    "distill, no scalar": (
        {"distill": f"{HERE}:distill_no_scalar"},
        r"distill '.*:distill_no_scalar' \(mistakes_of_users.py:\d+\) returned a tensor \[\d+, 1\]; it must return a",
    ),
    "distill, fails": (
        {"distill": f"{HERE}:distill_that_fails"},
        r"distill '.*:distill_that_fails' fails at mistakes_of_users.py:\d+, `return teacher.absent\(batch\)` \(Attr",
    ),
    "optimizer, none": (
        {"optimizer": f"{HERE}:no_optimizer"},
        r"optimizer '.*:no_optimizer' \(mistakes_of_users.py:\d+\) returned list; it must return a torch.optim.Optim",
    ),
    "optimizer, fails": (
        {"optimizer": f"{HERE}:optimizer_that_fails"},
        r"optimizer '.*:optimizer_that_fails' fails at mistakes_of_users.py:\d+, `return torch.optim.SGD\(",
    ),
    "fit, fails": (
        {"fit": f"{HERE}:fit_that_fails"},
        r"fit '.*:fit_that_fails' fails at mistakes_of_users.py:\d+, `raise KeyError\(\"steps\"\)` \(KeyError: 'step",
    ),
    "augment, fails": (
        {"augment": f"{HERE}:augment_that_fails"},
        r"augment '.*augment_that_fails.*' fails at mistakes_of_users.py:\d+, `return inputs @ inputs` \(RuntimeError",
    ),
    "data, read once": (
        {"data": f"{HERE}:read_once"},
        r"data '.*': the training split can be iterated only once; give a DataLoader, a list, or a class with __iter__",
    ),
    "data, exhausted": (
        {"data": f"{HERE}:exhausted"},
        r"data '.*': the training split is empty when it is iterated again; its __iter__ must begin anew every time",
    ),
    "data, fails": (
        {"data": f"{HERE}:failing"},
        r"data '.*, training' fails at mistakes_of_users.py:\d+, `raise OSError\(\"no such file\"\)` \(OSError: no s",
    ),
    "data, other keys": (
        {"data": f"{HERE}:other_keys", "loss": None, "metric": None},
        r"model 'Regressor' \(tasks_of_users.py:\d+\) fails \(TypeError: .* unexpected keyword argument 'extra'\)",
    ),
}
OF_FACTORIES: dict[str, Case] = {
    "data, factory": (
        {"data": f"{HERE}:factory_that_fails"},
        r"data 'mistakes_of_users:factory_that_fails' fails at mistakes_of_users.py:\d+, `return {}\[\"train\"\]` ",
    ),
    "model, factory": (
        {"model": f"{HERE}:factory_that_fails"},
        r"model 'mistakes_of_users:factory_that_fails' fails at mistakes_of_users.py:\d+, `return {}\[\"train\"\]` ",
    ),
    "data, read once": (
        {"data": f"{HERE}:read_once"},
        r"data 'mistakes_of_users:read_once': .* only once; .*; it comes from mistakes_of_users.py:\d+",
    ),
}
"""What is named by its factory as well, which only an address has."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Trials) -> None:
    monkeypatch.chdir(tmp_path)


def is_right(said: str, rule: str) -> None:
    assert re.search(rule, said), said
    assert "in_memory" not in said
    assert "\n" not in said.strip()
    assert [path.name for path in Path().iterdir() if path.name != "own.toml"] == []


@pytest.mark.parametrize("name", [*CASES, *OF_FACTORIES])
def test_on_the_command_line(command: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str) -> None:
    given, rule = (CASES | OF_FACTORIES)[name]
    keys = BASE | given
    share, function = parse_distill(str(keys.pop("distill", 0)))
    task = [f"{key} = {value!r}" if '"' in value else f'{key} = "{value}"' for key, value in keys.items() if value]
    task += [f'distill = "{function}"'] if function else []
    space = f'[space]\ndistill = {share}\nsteps = 2\n[space.ratio]\n"*" = {{low = 0.1, high = 0.9}}\n'
    Path("own.toml").write_text("\n".join(["[task]", *task, space]))
    for more in ((), ("--dry-run",)):
        assert command("search", "--space", "own.toml", "--budget", 2, "--run-dir", "out", "--force", *more) == 2
        is_right(capsys.readouterr().err.removeprefix("tune-prune: "), rule)


@pytest.mark.parametrize("name", CASES)
def test_from_python(name: str) -> None:
    given, rule = CASES[name]

    def find(value: object) -> Any:
        if not isinstance(value, str) or "(" in value:
            return value
        module, _, function = value.partition(":")
        return getattr({HERE: mistakes_of_users, "tasks_of_users": tasks_of_users}[module], function)

    keys = {key: find(value) for key, value in (BASE | {"distill": 0.0} | given).items()}
    model, data = keys.pop("model"), keys.pop("data")()
    said = fault(
        lambda: tune_prune.search(model, data, budget=2, steps=2, force=True, run_dir=Path("out"), quiet=True, **keys)
    )
    is_right(said, rule)


def test_a_mistake_in_training_is_found_before_prune_writes(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for key, value in BASE.items() for word in (f"--{key}", value)]
    more = ("-l", "net.0", "-p", 0.5, "--retrain", "--out", "out", "--distill")
    assert command("prune", *words, *more, f"{HERE}:distill_that_fails") == 2
    is_right(capsys.readouterr().err, CASES["distill, fails"][1])


def test_nothing_of_this_is_wrong(command: Callable[..., int]) -> None:
    """What the cases change is all that is wrong with them."""
    front = tune_prune.search(trained_regressor, rows(), loss=BASE["loss"], metric=BASE["metric"], budget=2, steps=2,
                              distill=0.5, run_dir=Path("out"), quiet=True)  # fmt: skip
    assert front.summary["trials"]["failed"] == 0
