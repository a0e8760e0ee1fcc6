"""What is done with a front once it is chosen, where it is asked for: confirmed from other seeds, and refitted."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tune_prune.confirm import confirm_front
from tune_prune.distributed.parallel import worker_pool
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.preparation import Prepared, known_statistics
from tune_prune.refit import refit_front
from tune_prune.results.confidence import Confirmation
from tune_prune.results.front import Member
from tune_prune.results.records import TrialRecord


def confirm_and_refit(
    run_dir: Path,
    config: Config,
    space: Space,
    prepared: Prepared,
    records: Sequence[TrialRecord],
    members: Sequence[Member],
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> tuple[dict[str, Confirmation], dict[str, str]]:
    """By member id: what repetitions measured, and the files of refitted weights, relative to the run directory.

    What the run directory has is not done again. What fails is said and left out, as is what is missing when `stopped`
    says that there is no going on.
    """
    confirmed: dict[str, Confirmation] = {}
    refitted: dict[str, str] = {}
    if not members or not (config.confirm or config.refit):
        return confirmed, refitted
    known = known_statistics(space, prepared.task, config, say)
    info = prepared.info
    with worker_pool(prepared.task, config, known, run_dir / "ray.log", stopped) as each:
        if config.confirm:
            say(f"confirming {len(members)} members of the front from {config.confirm} seeds each")
            by_trial = {record.trial: record for record in records}
            confirmed, failures = confirm_front(
                run_dir, members, by_trial, seed=info.seed, limit=info.limit, count=config.confirm, each=each
            )
            for line in failures:
                say(line)
        if config.refit and not stopped():
            say(f"refitting {len(members)} members of the front on training and validation images together")
            finish = space.finish
            refitted, failures = refit_front(
                run_dir, members, seed=info.seed, steps=finish.steps, lr=finish.lr, each=each
            )
            for line in failures:
                say(line)
    return confirmed, refitted
