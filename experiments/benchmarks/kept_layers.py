"""One layer alone, dense and by kept weights: at which share of weights which layers become faster.

    OMP_NUM_THREADS=1 python experiments/benchmarks/kept_layers.py

Forward and backward in processor time, medians of seven, with a gradient of the inputs; the limits below which the
product leaves a layer dense (`training/sparse_layers.py`) are lifted. Prints a table, and writes kept_layers.json.
"""

import statistics
import time

import torch
from common import write
from torch import Tensor, nn

from tune_prune.training import sparse_layers

SHARES = (0.2, 0.1, 0.05, 0.02)
CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "120 -> 120, 128 samples": (nn.Linear(120, 120), (128, 120)),
    "256 -> 256, 128 samples": (nn.Linear(256, 256), (128, 256)),
    "784 -> 300, 128 samples": (nn.Linear(784, 300), (128, 784)),
    "2400 -> 120, 128 samples": (nn.Linear(2400, 120), (128, 2400)),
    "768 -> 768, 512 tokens": (nn.Linear(768, 768), (512, 768)),
    "4096 -> 4096, 32 samples": (nn.Linear(4096, 4096), (32, 4096)),
    "5 x 5, 6 -> 96 of 14 x 14": (nn.Conv2d(6, 96, 5), (128, 6, 14, 14)),
    "5 x 5, 8 -> 64 of 14 x 14": (nn.Conv2d(8, 64, 5), (128, 8, 14, 14)),
    "5 x 5, 20 -> 50 of 12 x 12": (nn.Conv2d(20, 50, 5), (128, 20, 12, 12)),
    "3 x 3, 32 -> 32 of 28 x 28": (nn.Conv2d(32, 32, 3, padding=1), (128, 32, 28, 28)),
    "3 x 3, 64 -> 64 of 8 x 8": (nn.Conv2d(64, 64, 3, padding=1), (128, 64, 8, 8)),
    "1 x 1, 128 -> 128 of 8 x 8": (nn.Conv2d(128, 128, 1), (128, 128, 8, 8)),
}


def milliseconds(model: nn.Module, inputs: Tensor) -> float:
    """Forward and backward."""
    times = []
    for _ in range(9):
        inputs.grad = None
        for parameter in model.parameters():
            parameter.grad = None
        began = time.process_time()
        outputs = model(inputs)
        (outputs * outputs).mean().backward()
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times[2:])


def main() -> None:
    """Measure all cases."""
    torch.set_num_threads(1)
    sparse_layers.MAX_KEPT, sparse_layers.MIN_WEIGHTS = 1.0, {nn.Linear: 1, nn.Conv2d: 1}
    sparse_layers.MAX_CHANNELS = sparse_layers.MAX_PATCHES = 10**9
    print("| layer | dense, ms | " + " | ".join(f"times faster at {100 * share:g} %" for share in SHARES) + " |")
    print("|---|---|" + "---|" * len(SHARES))
    found = {}
    for name, (layer, shape) in CASES.items():
        model, inputs = nn.Sequential(layer, nn.ReLU()), torch.randn(shape)
        weight = next(layer.parameters())
        if inputs.dim() == 4:  # as the product lays them out
            weight.data, inputs = (t.contiguous(memory_format=torch.channels_last) for t in (weight.data, inputs))
        inputs.requires_grad_()
        times = list[tuple[float, float]]()
        for share in SHARES:
            mask = (torch.rand(weight.shape) < share).float()
            weight.data *= mask
            dense = milliseconds(model, inputs)
            with sparse_layers.sparse_layers(model, [(weight, mask)], inputs[:2].detach()):
                times.append((dense, milliseconds(model, inputs)))
            torch.nn.init.kaiming_uniform_(weight)
        found[name] = times
        ratios = " | ".join(f"{dense / sparse:.2f}" for dense, sparse in times)
        print(f"| {name} | {statistics.median(dense for dense, _ in times):.2f} | {ratios} |", flush=True)
    write("kept_layers", {"milliseconds of a layer, dense and by kept weights": found})


if __name__ == "__main__":
    main()
