"""The commands that a report names for going on from a run."""

import os
import shlex
from html import escape
from pathlib import Path

from tune_prune.common.entrypoints import is_address
from tune_prune.common.errors import UserError
from tune_prune.results import conf
from tune_prune.results.run_results import Row, RunResults, get_mapping
from tune_prune.tasks import in_memory
from tune_prune.tasks.metrics import ERROR
from tune_prune.tasks.settings import MEASURING

BUTTON = '<button type="button" data-copy hidden>Copy</button>'


def make_next_steps(run: RunResults, run_dir: Path) -> str:
    """The section of what to type next, each command with a button that copies it."""
    steps = list_next_steps(run, run_dir)
    lines = [
        f'<div class="step"><pre>{escape(command)}</pre><p class="note">{escape(what)}</p>{BUTTON}</div>'
        for command, what in steps.items()
    ]
    return "<h2>What to type next</h2>\n" + "\n".join(lines) if lines else ""


def list_next_steps(run: RunResults, run_dir: Path) -> dict[str, str]:
    """The commands that make sense next, and what each does."""
    where = shlex.quote(_shorten(run_dir))
    if run.partial:
        return {
            f"tune-prune report {where} --watch": "follow the search in the browser",
            f"tune-prune search --resume {where}": "go on with the search, if it was interrupted",
        }
    best = next((row for row in run.front if row.get("id") == run.summary.get("best")), None)
    if best is None:
        return {f"tune-prune search --resume {where} --budget {2 * _budget(run)}": "go on with the search"}
    steps = {}
    if best.get("checkpoint") and best["checkpoint"] not in run.missing and not _is_object(run):
        checkpoint, code = shlex.quote(f"{_shorten(run_dir)}/{best['checkpoint']}"), _name_code(run, best)
        steps[f"tune-prune test {checkpoint}{code}"] = "measure the best member on the test data again"
        steps[f"tune-prune export {checkpoint} --to sparse{code}"] = "the smallest file; --to onnx for other programs"
    others = f"select another member: knee, factor=30, {run.metric.name}={'1.0' if run.metric == ERROR else '...'}"
    return steps | {
        f"tune-prune report {where} --select knee": others,
        f"tune-prune search --resume {where} --confirm 5": "prune and retrain each member again from 5 other seeds",
        f"tune-prune search --resume {where} --budget {2 * _budget(run)}": "search on",
        f"tune-prune compare {where} OTHER_RUN": "put its front beside that of another run",
    }


def _budget(run: RunResults) -> int:
    budget = run.summary.get("budget")
    return budget if isinstance(budget, int) and budget > 0 else max(1, len(run.trials))


def _is_object(run: RunResults) -> bool:
    """Whether model or data came from Python as an object, which no command can name."""
    return any(str(run.summary.get(key)).startswith(in_memory.__name__) for key in ("model", "data"))


def _name_code(run: RunResults, member: Row) -> str:
    """The flags that name the code of a run's task: a checkpoint's own word for it is not trusted."""
    try:
        task = get_mapping(conf.parse(run.confs.get(str(member.get("id")), ""), "its conf").notes, "task")
    except UserError:  # a damaged conf: the command itself says which flag it lacks
        task = {}
    named = {key: run.summary.get(key) for key in ("model", "data")} | {key: task.get(key) for key in MEASURING}
    code = {key: value for key, value in named.items() if isinstance(value, str) and is_address(value)}
    return "".join(f" --{key} {shlex.quote(value)}" for key, value in code.items())


def _shorten(path: Path) -> str:
    """A path from the working directory, where it lies below it."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here)) if path.is_relative_to(here) else os.fspath(path)
