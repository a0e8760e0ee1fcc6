"""Measures, on every classification model of torchvision, whether Torch-Pruning cuts half of the channels correctly.

It is run by `OMP_NUM_THREADS=1 python experiments/channels/torch_pruning_survey.py [MODEL...]`, and keeps rows it has.

Each model has random weights and a process of its own. A model is cut where its pruned copy runs, has outputs of the
same shape, and has fewer parameters. It is exact where its outputs are those of the whole model with the same channels
masked: zeros in their weights and biases, and layer norms that look at the kept channels alone. Seconds are those that
Torch-Pruning takes to trace and to prune. Writes results/torch_pruning_survey.csv.
"""

import copy
import csv
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.models.vision_transformer import VisionTransformer

RESULTS = Path(__file__).parent / "results" / "torch_pruning_survey.csv"
COUNTS = ["params_before", "params_after", "macs_before", "macs_after"]
COLUMNS = ["model", "cut", "exact", "difference", *COUNTS, "seconds", "error"]
RATIO, TOLERANCE, LIMIT, MEMORY = 0.5, 1e-4, 300, 20 * 2**30  # seconds and bytes of one model
Row = dict[str, Any]


def build(name: str, inputs: tuple[Tensor]) -> nn.Module:
    """The model with all its weights at random, of sizes that keep the signal alive, so that errors show."""
    options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options).eval()
    for parameter in model.parameters():
        if parameter.min() == parameter.max():
            nn.init.normal_(parameter, 0, 0.2)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(set_statistics) for layer in norms]
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return model


def set_statistics(layer: nn.Module, inputs: tuple[Tensor]) -> None:
    """Gives a batch norm running statistics at random, in the order of the size of its inputs."""
    square = inputs[0].square().mean((0, 2, 3)) + 1e-3
    layer.running_mean = 0.1 * square.sqrt() * torch.randn_like(square)
    layer.running_var = square * torch.empty_like(square).uniform_(0.5, 1.5)


def new_pruner(model: nn.Module, inputs: tuple[Tensor]) -> Any:
    """The pruner that the examples of Torch-Pruning build for the family: the layer of the scores is left whole."""
    ignored: list[Any] = [[m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]]
    heads: dict[nn.Module, int] = {}
    for layer in model.modules():
        if isinstance(layer, nn.MultiheadAttention):
            heads[layer] = layer.num_heads
        elif isinstance(layer, ShiftedWindowAttention):
            heads[layer.qkv] = layer.num_heads
        elif isinstance(layer, RelativePositionalMultiHeadAttention):
            heads[layer.to_qkv] = layer.n_heads
        for part in ("relative_position_bias_table", "cpb_mlp", "logit_scale"):  # their axes are heads, not channels
            ignored += [getattr(layer, part)] if hasattr(layer, part) else []
    options = {"pruning_ratio": RATIO, "ignored_layers": ignored, "num_heads": heads}
    return tp.pruner.BasePruner(model, inputs, tp.importance.RandomImportance(), **options)


def update_sizes(model: nn.Module) -> None:
    """Sets the sizes that models of torchvision keep as numbers, as the examples of Torch-Pruning do."""
    for module in model.modules():
        if isinstance(module, VisionTransformer):
            module.hidden_dim = module.conv_proj.out_channels
        elif isinstance(module, RelativePositionalMultiHeadAttention):
            module.head_dim = module.to_qkv.out_features // (3 * module.n_heads)


class Masks:
    """Repeats on a whole copy of a model, by masks, what is removed from the model."""

    def __init__(self, whole: nn.Module) -> None:
        self.whole = whole
        self.kept: dict[tuple[str, str], list[int]] = {}  # the original positions that are still there

    def record(self, group: Any, names: dict[nn.Module, str], model: nn.Module) -> None:
        """Masks what this group is about to remove from the model."""
        parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        for item in group.items:
            target, side = item.dep.target, item.dep.handler.__name__.split("_")[1]
            positions = tp._helpers.to_plain_idxs(item.idxs)
            if isinstance(target.module, nn.Parameter):
                weight, axis = self.whole.get_parameter(parameters[id(target.module)]), target.pruning_dim
                removed = self.original(parameters[id(target.module)], "out", weight.shape[axis], positions)
                weight.data.index_fill_(axis, torch.tensor(removed), 0)
            elif target.module in names:
                layer = self.whole.get_submodule(names[target.module])
                self.mask(layer, side, self.original(names[target.module], side, width(layer, side), positions))

    def original(self, name: str, side: str, size: int, positions: list[int]) -> list[int]:
        """The positions, among those that are left, as positions in the whole model; they are left no more."""
        kept = self.kept.get((name, side), list(range(size)))
        removed = {kept[position] for position in positions}
        self.kept[name, side] = [position for position in kept if position not in removed]
        return sorted(removed)

    def mask(self, layer: nn.Module, side: str, removed: list[int]) -> None:
        """Sets zeros in a layer where its channels are removed."""
        index = torch.tensor(removed, dtype=torch.long)
        if isinstance(layer, nn.MultiheadAttention):
            thrice = torch.cat([index + block * layer.embed_dim for block in range(3)])
            clear([(layer.in_proj_weight, 0), (layer.in_proj_bias, 0)], thrice)
            clear([(layer.in_proj_weight, 1), (layer.out_proj.weight, 0), (layer.out_proj.weight, 1)], index)
            clear([(layer.out_proj.bias, 0)], index)
        elif side == "out":
            clear([(layer.weight, 0), (layer.bias, 0)], index)
        elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
            columns, rows = layer.in_channels // layer.groups, layer.out_channels // layer.groups
            for channel in removed:
                group = channel // columns
                layer.weight.data[group * rows : (group + 1) * rows, channel % columns] = 0
        else:
            clear([(layer.weight, 1)], index)

    def finish(self) -> nn.Module:
        """The whole model with its masks, whose layer norms look at the kept channels alone."""
        for name, layer in self.whole.named_modules():
            if isinstance(layer, nn.LayerNorm) and (name, "out") in self.kept:
                layer.forward = norm_of_kept(layer, torch.tensor(self.kept[name, "out"]))  # type: ignore
        return self.whole


def width(layer: nn.Module, side: str) -> int:
    """The number of channels of a layer, of its inputs or its outputs."""
    if isinstance(layer, nn.MultiheadAttention):
        return layer.embed_dim
    if isinstance(layer, nn.Conv2d) and side == "in":
        return layer.in_channels
    return int(layer.weight.shape[1 if side == "in" else 0])  # type: ignore[union-attr, index]


def clear(slices: list[tuple[Any, int]], index: Tensor) -> None:
    """Sets zeros at these positions of an axis of each parameter."""
    for parameter, axis in slices:
        if parameter is not None:
            parameter.data.index_fill_(axis, index, 0)


def norm_of_kept(layer: nn.LayerNorm, kept: Tensor) -> Callable[[Tensor], Tensor]:
    """The forward of a layer norm that normalises over these channels and gives zero in the others."""
    axis = 1 if isinstance(layer, LayerNorm2d) else -1

    def forward(values: Tensor) -> Tensor:
        last = values.movedim(axis, -1)
        normed = F.layer_norm(last[..., kept], (len(kept),), layer.weight[kept], layer.bias[kept], layer.eps)
        return torch.zeros_like(last).index_copy(-1, kept, normed).movedim(-1, axis)

    return forward


def survey(name: str, row: Row) -> None:
    """Prunes one model and fills its row."""
    torch.manual_seed(0)
    inputs = (torch.randn(1, 3, *(2 * [299 if name == "inception_v3" else 224])),)
    model = build(name, inputs)
    masks, names = Masks(copy.deepcopy(model)), {module: path for path, module in model.named_modules()}
    row["macs_before"], row["params_before"] = map(int, tp.utils.count_ops_and_params(model, inputs))
    shape = model(*inputs).shape
    problem, spent, start = "", 0.0, time.perf_counter()
    for group in new_pruner(model, inputs).step(interactive=True):
        spent += time.perf_counter() - start
        try:
            masks.record(group, names, model)
        except (LookupError, AttributeError, RuntimeError) as error:
            problem = problem or f"no masks: {error!r}"
        start = time.perf_counter()
        group.prune()
    row["seconds"] = round(spent + time.perf_counter() - start, 2)
    update_sizes(model)
    pruned = model(*inputs).detach()
    row["macs_after"], row["params_after"] = map(int, tp.utils.count_ops_and_params(model, inputs))
    row.update(cut=pruned.shape == shape and row["params_after"] < row["params_before"], error=problem)
    if row["cut"] and not problem:
        masked = masks.finish()(*inputs).detach()
        difference = float((pruned - masked).abs().max() / masked.abs().max())
        row.update(difference=f"{difference:.2g}", exact=difference <= TOLERANCE)


def send_row(name: str, sender: Connection) -> None:
    """Sends the row of a model, with its error if it has one."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    row: Row = {"model": name, "cut": False}
    try:
        survey(name, row)
    except Exception as error:
        row["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    sender.send(row)


def alone(name: str) -> Row:
    """The row of a model, from a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_row, args=(name, sender))
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv() if receiver.poll(LIMIT) else {"error": f"more than {LIMIT} s"}
    except EOFError:
        row = {"error": "the process died"}
    process.kill()
    process.join()
    return {"model": name, "cut": False} | row


def main(names: list[str]) -> None:
    """Makes the rows, of all models or of these, that are not there yet."""
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    there = {row["model"] for row in rows}
    for name in names or torchvision.models.list_models(module=torchvision.models):
        if name not in there:
            row = alone(name)
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
