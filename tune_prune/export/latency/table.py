"""A latency table: how long the operations of some pruned networks take on a device."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.common.parsing import parse_json
from tune_prune.export.latency.programs import Cost

FORMAT = 1
"""The format of the file."""


@dataclass(frozen=True)
class TimedNetwork:
    """A network's operations with their seconds, each timed by itself, and the seconds of the whole network."""

    costs: Sequence[Cost]
    seconds: Sequence[float]
    total: float


@dataclass(frozen=True)
class LatencyTable:
    """How long networks take on a `device` for a batch of so many samples: the dense model first, then pruned forms.

    `model` is the fingerprint of the dense model's operations; `torch` the version of PyTorch that ran them.
    """

    model: str
    batch: int
    device: str
    torch: str
    networks: Sequence[TimedNetwork]

    @property
    def dense_seconds(self) -> float:
        """The seconds of the dense model."""
        return self.networks[0].total

    @property
    def pruned(self) -> Sequence[TimedNetwork]:
        """All networks but the dense one."""
        return self.networks[1:]


def fingerprint(costs: Sequence[Cost]) -> str:
    """The fingerprint of a model, from its operations and their sizes."""
    return hashlib.sha256(json.dumps(costs).encode()).hexdigest()[:16]


def describe_networks(costs: Sequence[Sequence[Cost]], batch: int) -> dict[str, Any]:
    """A table without times, as `device_script` completes it; the dense model's operations come first."""
    networks = [{"operations": [list(cost) for cost in one]} for one in costs]
    return {"format": FORMAT, "model": fingerprint(costs[0]), "batch": batch, "networks": networks}


def write_table(path: Path, table: LatencyTable) -> None:
    """Writes a table as JSON."""
    content = describe_networks([network.costs for network in table.networks], table.batch)
    for written, network in zip(content["networks"], table.networks, strict=True):
        written |= {"seconds": list(network.seconds), "total": network.total}
    files.write_text(path, json.dumps(content | {"device": table.device, "torch": table.torch}) + "\n")


def read_table(path: Path) -> LatencyTable:
    """Reads a table; raises a `UserError` that names the file where there is none in it."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']!r}, and this version reads {FORMAT}")
        networks = [_read_network(network) for network in content["networks"]]
        if len(networks) < 2:
            raise ValueError("it has fewer than two networks")
        return LatencyTable(
            str(content["model"]), int(content["batch"]), str(content["device"]), str(content["torch"]), networks
        )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; `tune-prune latency` makes a table") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is no latency table ({error}); `tune-prune latency` makes one") from error


def _read_network(content: Mapping[str, Any]) -> TimedNetwork:
    costs = [Cost(str(name), *map(float, numbers)) for name, *numbers in content["operations"]]
    seconds, total = [float(number) for number in content["seconds"]], float(content["total"])
    if len(costs) != len(seconds) or not all(0 <= one < 1e6 for one in seconds) or not 0 < total < 1e6:
        raise ValueError("its times do not fit its operations")
    return TimedNetwork(costs, seconds, total)
