"""What the benchmarks share: medians with ranges, the machine, and where results go."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine() -> dict[str, str]:
    """What was measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    found = {name: version(name) for name in ("torch", "ray", "optuna")}
    return {"cpu": ", ".join(names) or platform.processor(), "cores": str(os.cpu_count())} | found


def write(name: str, found: dict[str, object]) -> None:
    """Put a benchmark's raw values beside it."""
    path = Path(__file__).with_name(f"{name}.json")
    path.write_text(json.dumps({"machine": machine()} | found, indent=1) + "\n", encoding="utf-8")
