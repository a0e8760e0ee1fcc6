"""Times the operations of pruned networks on the device that runs this file, which needs PyTorch and nothing else.

    python FILE [--device cpu|cuda|mps] [--threads N] [--out latency.json]

A network is a list of operations of PyTorch with the shapes of their inputs, and is run with random weights. The file
that is written is a table for `tune-prune search --latency-on latency.json`.
"""

import argparse
import base64
import json
import math
import platform
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import torch

NETWORKS = ""
"""The networks to time, in base 85: a compressed JSON object; empty where this file is a module of tune_prune."""

READINGS, MIN_READINGS, MAX_SECONDS = 11, 3, 1.0
"""Readings of a network, and at least so many of one of which READINGS would take longer than MAX_SECONDS."""


def synchronize(device: torch.device) -> None:
    """Waits until a device has done what it was given to do."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def make_constant(shape: list[int], dtype: str, strides: list[int], device: torch.device) -> torch.Tensor:
    """Makes a weight or an input: random numbers, or zeros of a type that has no fractions."""
    kind = getattr(torch, dtype)
    made = torch.empty_strided(shape, strides, dtype=kind, device=device) if strides else None
    made = torch.empty(shape, dtype=kind, device=device) if made is None else made
    return made.normal_() if kind.is_floating_point else made.zero_()


def find_operation(name: str) -> Callable[..., Any]:
    """The operation of PyTorch of a name such as `aten.add.Tensor`."""
    space, packet, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, space), packet), overload)
    return found


def as_source(value: Any) -> str:
    """The Python expression of an argument: a number, a list, a tensor by where it comes from, or a type."""
    if isinstance(value, list):
        return "[" + ", ".join(map(as_source, value)) + "]"
    if not isinstance(value, dict):
        return repr(value)
    ((kind, what),) = value.items()
    if kind == "output":
        operation, number = what
        return f"o{operation}" if number is None else f"o{operation}[{number}]"
    return {"constant": f"c[{what}]", "device": "device"}.get(kind, f"torch.{what}")


def list_outputs(value: Any) -> list[int]:
    """The numbers of the operations whose outputs an argument is made of."""
    if isinstance(value, list):
        return [number for part in value for number in list_outputs(part)]
    return [value["output"][0]] if isinstance(value, dict) and "output" in value else []


def compile_program(program: dict[str, Any], timed: bool) -> Callable[..., None]:
    """Compiles a network to a function of its operations, weights and device; `timed` adds up seconds by operation.

    Outputs are freed after their last use, as they are where a model runs.
    """
    operations = program["operations"]
    uses = [list_outputs(list(args) + list(kwargs.values())) for _, args, kwargs in operations]
    last = {number: at for at, used in enumerate(uses) for number in used}
    lines = ["def run(f, c, device, seconds):"]
    for at, (_, args, kwargs) in enumerate(operations):
        words = [as_source(value) for value in args]
        words += [f"{key}={as_source(value)}" for key, value in kwargs.items()]
        lines += [" began = clock()"] if timed else []
        lines += [f" o{at} = f[{at}]({', '.join(words)})"]
        lines += [" synchronize(device)", f" seconds[{at}].append(clock() - began)"] if timed else []
        gone = sorted({number for number in uses[at] if last[number] == at})
        lines += [" del " + ", ".join(f"o{number}" for number in gone)] if gone else []
    names: dict[str, Any] = {
        "torch": torch,
        "inf": math.inf,
        "nan": math.nan,
        "clock": time.perf_counter,
        "synchronize": synchronize,
    }
    # of a program that this process recorded, or the one that wrote this file
    exec("\n".join(lines), names)
    run: Callable[..., None] = names["run"]
    return run


@torch.no_grad()
def time_program(program: dict[str, Any], device: torch.device) -> tuple[float, list[float]]:
    """Measures the seconds of a whole network, and the seconds of each of its operations; medians of READINGS."""
    constants = [make_constant(shape, dtype, strides, device) for shape, dtype, strides in program["constants"]]
    functions = [find_operation(name) for name, _, _ in program["operations"]]
    whole, apart = compile_program(program, timed=False), compile_program(program, timed=True)
    seconds: list[list[float]] = [[] for _ in functions]
    totals: list[float] = []
    for reading in range(-1, READINGS):  # the first one warms up
        began = time.perf_counter()
        whole(functions, constants, device, seconds)
        synchronize(device)
        totals.append(time.perf_counter() - began)
        apart(functions, constants, device, seconds)
        if reading + 1 >= MIN_READINGS and sum(totals) > MAX_SECONDS:
            break
    return statistics.median(totals[1:]), [statistics.median(times[1:]) for times in seconds]


def describe_device(device: torch.device) -> str:
    """The name of a device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        name = names[0] if names else name
    except OSError:  # it is another system's
        pass
    threads = torch.get_num_threads()
    return f"{name}, {threads} {'thread' if threads == 1 else 'threads'}"


def main() -> None:
    """Times all networks and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of a CPU (default: 1)")
    parser.add_argument("--out", default="latency.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    content = json.loads(zlib.decompress(base64.b85decode(NETWORKS)))
    table, programs = content["table"], content["programs"]
    for number, (program, network) in enumerate(zip(programs, table["networks"], strict=True), start=1):
        network["total"], network["seconds"] = time_program(program, device)
        print(f"network {number} of {len(programs)}: {1000 * network['total']:.3f} ms", flush=True)
    table["device"], table["torch"] = describe_device(device), torch.__version__
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(table, file)
    print(f"table: {options.out}; copy it back: tune-prune search --latency-on {options.out}")


if __name__ == "__main__":
    main()
