"""What the study notes of a trial beside its parameters: why it was started, from which round, and how often."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tune_prune.common.typecheck import check_fields


@dataclass(frozen=True)
class TrialAttrs:
    """What the study notes of a trial beside its parameters.

    `queued` is its number among the initial points and levels, None for a trial that was drawn. `refines` is the
    trial that it refines, `extends` the one at the end of the front beyond which it goes; `gradual` says that it is
    a round of gradual pruning, which trains `times` as long as others. `parent` and `parent_round` are the round
    from which it starts. `starts` counts how often it was started since its last round, of which `rounds_before`
    were recorded then; a start that ended in order, as by SIGINT, is not counted. `exempt` says why it would have
    been stopped early, where it went on to measure what stopping costs. `process` runs it, where several share the
    study.
    """

    queued: int | None = None
    refines: int | None = None
    extends: int | None = None
    gradual: bool = False
    times: int = 1
    parent: int | None = None
    parent_round: int | None = None
    starts: int = 1
    rounds_before: int = 0
    exempt: str | None = None
    process: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether its parameters were given, not drawn by the sampler."""
        return self.trains_long or self.queued is not None or self.extends is not None

    @property
    def trains_long(self) -> bool:
        """Whether it refines another or prunes gradually: its training and its start are not those of other trials."""
        return self.gradual or self.refines is not None

    @classmethod
    def read(cls, number: int, written: Mapping[str, Any]) -> "TrialAttrs":
        """The attributes of a trial as the study has them; raises a TypeError or ValueError where they are damaged."""
        attrs = cls(**written)
        check_fields(attrs)
        if (attrs.parent is None) != (attrs.parent_round is None):
            raise ValueError(f"trial {number} starts from no round of another")
        others = attrs.parent, attrs.refines, attrs.extends
        if any(earlier is not None and not 0 <= earlier < number for earlier in others):
            raise ValueError(f"trial {number} follows from a later one")
        return attrs

    def to_dict(self) -> dict[str, Any]:
        """The attributes that say more than the default, as Optuna's user attributes."""
        return {key: value for key, value in asdict(self).items() if value != getattr(TrialAttrs, key)}
