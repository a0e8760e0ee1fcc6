"""Lists what a user may type next, once a search has ended: commands that work when they are copied."""

import shlex
import shutil
import sys
from pathlib import Path

from tune_prune.common.entrypoints import TRUSTED, is_address
from tune_prune.common.files import shorten
from tune_prune.results.front import Member
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.run_info import RunInfo
from tune_prune.tasks import in_memory
from tune_prune.tasks.settings import MEASURING

SCATTERED = ("weight", "2:4")
"""Granularities that leave the shape of every layer as it is."""


def list_next_commands(run_dir: Path, outcome: SearchOutcome) -> list[str]:
    """The commands; none where a part of the task came from Python as an object, which no command line can name."""
    info, program, run = outcome.info, _name_program(), shlex.quote(shorten(run_dir))
    if _has_objects(info):
        return []
    longer = f"--budget {2 * info.budget}" if info.budget else "--time-budget 15m"
    more = f"{program} search --resume {run} {longer}"
    best = outcome.best
    if best is None:
        return [f"{program} report {run}", more]
    checkpoint = shlex.quote(str(Path(shorten(run_dir)) / "checkpoints" / f"{best.id}.safetensors"))
    code = _list_code(info)
    return [
        " ".join([program, "test", checkpoint, *code]),
        " ".join([program, "export", checkpoint, "--to", _choose_format(best), *code]),
        f"{program} report {run} --select knee",
        f"{program} search --resume {run} --confirm 5",
        more,
    ]


def _choose_format(best: Member) -> str:
    """The smallest file of single weights, or the network without what was removed whole."""
    return "sparse" if best.record.params.to_plan().granularity in SCATTERED else "dense"


def _name_program() -> str:
    """How the program is called from this shell."""
    if shutil.which("tune-prune"):
        return "tune-prune"
    return f"{shlex.quote(shorten(Path(sys.executable)))} -m tune_prune"


def _has_objects(info: RunInfo) -> bool:
    names = [info.model, info.data, *info.settings.texts]
    return any(name.startswith((in_memory.__name__, *TRUSTED)) for name in names)


def _list_code(info: RunInfo) -> list[str]:
    """The flags by which a user says again that code of a task is trusted: a file that names it may be a stranger's."""
    flags = []
    if is_address(info.model) and not info.model.startswith("torchvision:"):
        flags += ["--model", info.model]
    if is_address(info.data):
        flags += ["--data", info.data]
    for key, value in info.settings.given.items():
        if key in MEASURING and is_address(str(value)):
            flags += [f"--{key.replace('_', '-')}", str(value)]
    return [shlex.quote(word) for word in flags]
