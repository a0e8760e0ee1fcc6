"""Measures latency tables on this machine, and writes the script that measures them on another device."""

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from tune_prune.common import files
from tune_prune.export.latency import device_script
from tune_prune.export.latency.programs import Cost, Program, record_program
from tune_prune.export.latency.readings import compare_latency, measure_latency
from tune_prune.export.latency.table import LatencyTable, TimedNetwork, describe_networks, fingerprint
from tune_prune.tasks.batches import Batch, iterate_tensors

READINGS = 5
"""Readings of each network in turn with the dense model; errors of single ones are evened out by the fit."""


def measure_table(
    dense: nn.Module, pruned: Iterable[nn.Module], inputs: Batch, batch: int, say: Callable[[str], None]
) -> LatencyTable:
    """Measures networks on the device of `inputs`, which are a batch of so many samples.

    Each pruned form is measured in turn with the dense model: a machine may be slower for a while.
    """
    device = next(iterate_tensors(inputs)).device
    timed = [_time_operations(dense, inputs, measure_latency(dense, inputs))]
    say(f"the dense model takes {1000 * timed[0].total:.3f} ms")
    for network in pruned:
        readings = compare_latency(dense, network, inputs, READINGS)
        timed.append(_time_operations(network, inputs, readings.share * timed[0].total))
    name = device_script.describe_device(device)
    return LatencyTable(fingerprint(timed[0].costs), batch, name, torch.__version__, timed)


def _time_operations(network: nn.Module, inputs: Batch, total: float) -> TimedNetwork:
    """Times the operations of a network that takes so many seconds in all."""
    program = record_program(network, inputs)
    _, seconds = device_script.time_program(program.to_dict(), next(iterate_tensors(inputs)).device)
    return TimedNetwork(program.costs, seconds, total)


def write_script(path: Path, programs: Sequence[Program], batch: int) -> None:
    """Writes `device_script` with these networks in it, the dense model first."""
    costs: list[Sequence[Cost]] = [program.costs for program in programs]
    content = {"table": describe_networks(costs, batch), "programs": [program.to_dict() for program in programs]}
    packed = base64.b85encode(zlib.compress(json.dumps(content).encode(), 9)).decode()
    text = Path(device_script.__file__).read_text(encoding="utf-8")
    files.write_text(path, text.replace('NETWORKS = ""', f'NETWORKS = "{packed}"', 1))
