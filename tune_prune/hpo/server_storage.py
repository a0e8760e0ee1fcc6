"""The storage of a study on a database server that may be away for a while, as when it is restarted.

Optuna's `RDBStorage` gives up at once, or adds a trial twice. Some of what it keeps private is replaced here.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar
from uuid import uuid4

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

Result = TypeVar("Result")

WAIT = 120.0
"""Seconds for which an operation is tried again while the server does not answer."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two tries; each pause is twice the one before."""

TOKEN = "tune_prune:token"
"""The system attribute by which a trial is found that an earlier try has added."""

OPERATIONS = (
    "create_new_study", "get_study_id_from_name", "get_study_name_from_id", "get_study_directions",
    "get_study_user_attrs", "get_study_system_attrs", "set_study_user_attr", "set_study_system_attr", "get_all_studies",
    "_create_new_trial", "set_trial_state_values", "set_trial_user_attr", "set_trial_system_attr", "get_trial",
    "_get_trials", "get_trial_id_from_study_id_trial_number",
)  # fmt: skip
"""What a search and Optuna's cache ask of the storage."""


class ServerStorage(RDBStorage):
    """A storage whose operations wait for the server, up to `WAIT` seconds; `say` prints a line when one has to.

    What is tried again is not done twice, also where the server did it and was gone before it said so.
    """

    say: Callable[[str], None] = staticmethod(lambda line: None)
    _tried: FrozenTrial | None = None

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        """The row of a new trial, in the transaction that adds it, or the row that an earlier try has added."""
        if template_trial is not None and template_trial is self._tried:
            token = json.dumps(template_trial.system_attrs[TOKEN])
            attribute, trial = models.TrialSystemAttributeModel, models.TrialModel
            rows = session.query(trial).join(attribute, attribute.trial_id == trial.trial_id)
            added = rows.filter(attribute.key == TOKEN, attribute.value_json == token).one_or_none()
            if added is not None:
                return added
        elif template_trial is not None:
            self._tried = template_trial
            template_trial.system_attrs = {**template_trial.system_attrs, TOKEN: uuid4().hex}
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Sets the state of a trial, and its values; an earlier try may have done so."""
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            found = self.get_trial(trial_id)
            if (found.state, found.values) != (state, None if values is None else list(values)):
                raise
            return True


def wait_for_server(operation: Callable[[], Result], say: Callable[[str], None]) -> Result:
    """Tries an operation again until the server answers, for `WAIT` seconds; then raises what it raised."""
    began, pause = None, FIRST_PAUSE
    while True:
        try:
            result = operation()
        except (StorageInternalError, DBAPIError) as error:
            if not _is_away(error) or (began is not None and time.monotonic() - began >= WAIT):
                raise
            if began is None:
                began = time.monotonic()
                say(f"the server of the study does not answer; waiting for it, {WAIT:g} s at most")
        else:
            if began is not None:
                say(f"the server of the study answers again, after {time.monotonic() - began:.1f} s")
            return result
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _make_waiting(operation: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(operation)
    def waiting(self: ServerStorage, *given: Any, **named: Any) -> Any:
        return wait_for_server(lambda: operation(self, *given, **named), self.say)

    return waiting


for _name in OPERATIONS:
    setattr(ServerStorage, _name, _make_waiting(getattr(ServerStorage, _name)))


def _is_away(error: Exception) -> bool:
    """Whether the server could not be reached, or went while it was asked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, OperationalError | InterfaceError):
        return True
    return isinstance(cause, DBAPIError) and cause.connection_invalidated
