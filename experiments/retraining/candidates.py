"""Ways of gradual pruning and retraining LeNet-300-100, many networks at once: which of them end better?

    python experiments/retraining/candidates.py OUT_DIR DENSE GROUP SEEDS STEPS
    python experiments/retraining/candidates.py OUT_DIR table

DENSE is a file of dense weights, as all.sh of experiments/search_efficiency trains them. Each way prunes to 25x and to
100x, a network each and for each seed, in STEPS steps. All ways of GROUP (see trajectories.py) train side by side, as
one stack of matrices, on the same batches; on a GPU where there is one, in tf32. BASE is what gradual.py there does.

Writes OUT_DIR/GROUP.csv: way, seed, target, round, steps, compression, error and loss on validation images, a row a
round. The table compares each way with BASE, network by network. Test images are not read.
"""

import csv
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from stack import Batches, Images, Stack, record, rows_of, top
from torch import Tensor
from trajectories import BASE, FACTORS, GROUPS, QUANTUM, SHAPES, SIZES, Net, boundaries, kept_at, learning_rates

from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.splits import Split


def read_images(split: object, device: torch.device) -> Images:
    """A split's pixels and labels on a device."""
    assert isinstance(split, Split)
    return Images(split.inputs.flatten(1).to(device), split.labels.to(device))


def run(out: Path, dense: Path, group: str, seeds: int, steps: int) -> None:
    """Trains every way of a group."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    data = load_data("mnist")
    train, validation = (read_images(split, device) for split in (data.train, data.validation))
    nets = [
        Net(way, seed, target, member, boundaries(way, steps))
        for way in GROUPS[group]
        for seed in range(seeds)
        for target in FACTORS
        for member in range(way.soup)
    ]
    stack = Stack(nets, load_file(str(dense)), device)
    print(f"{group}: {len(nets)} networks on {device}", flush=True)
    first = [w[:1] for w in stack.weights], [b[:1] for b in stack.biases]
    parts = train.pixels.split(5000)
    teacher = torch.cat([stack.forward(part.float().div_(255).unsqueeze(0), *first)[-1][0] for part in parts])
    rates = torch.stack([learning_rates(net, steps) for net in nets], 1).to(device)
    replay = record(lambda: stack.step(train.pixels, train.labels, teacher), stack, device)
    # networks of the same seed and target see the same batches, whatever their way
    keys = sorted({(net.seed, net.target, net.member) for net in nets})
    order = Batches(len(keys), len(train.labels), device)
    shared = torch.tensor([keys.index((net.seed, net.target, 0)) for net in nets], device=device)
    own = torch.tensor([keys.index((net.seed, net.target, net.member)) for net in nets], device=device)
    last = torch.tensor([net.starts[-2] for net in nets], device=device)
    rows = list[list[object]]()
    began = time.perf_counter()
    for step in range(0, steps + 1, QUANTUM):
        end_rounds(stack, step, validation, rows)
        begin_rounds(stack, step)
        if step == steps:
            break
        for inner in range(step, step + QUANTUM):
            stack.lr.copy_(rates[inner].view(-1, 1, 1))
            batch = order.next()
            stack.index.copy_(batch[torch.where(last <= inner, own, shared)])
            replay()
        if step % 3000 == 0:
            print(f"{step + QUANTUM} steps, {time.perf_counter() - began:.0f} s", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{group}.csv").open("w", newline="", encoding="utf-8") as file:
        columns = ["way", "seed", "target", "round", "steps", "compression", "val_error", "val_loss"]
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def begin_rounds(stack: Stack, step: int) -> None:
    """New masks where a round begins, and within a round where masks may change."""
    for way in {net.way for net in stack.nets}:
        chosen = [i for i, net in enumerate(stack.nets) if net.way == way]
        starts = stack.nets[chosen[0]].starts
        current = max((r for r, begin in enumerate(starts[:-1], 1) if begin <= step), default=1)
        begin, end = starts[current - 1], starts[current]
        new, moving = step == begin, step < begin + way.free * (end - begin)
        if step >= starts[-1] or not (new or ((way.returning or way.grown) and moving)):
            continue
        rows = rows_of(stack, chosen)
        kept = torch.tensor([kept_at(stack.nets[i], current) for i in chosen], device=stack.device)
        if way.returning:
            stack.choose(rows, [stack.weights[i][rows].abs().flatten(1) for i in range(3)], kept, way.rule)
        elif new:
            stack.set_masks(rows, kept, way.rule)
        elif way.grown:
            exchange(stack, rows, kept, way.grown * (1 - (step - begin) / (way.free * (end - begin))))
        if new:
            for velocity in stack.velocities:
                velocity[rows] = 0
            for average, parameter in zip(stack.averages, stack.parameters, strict=True):
                average[rows] = parameter[rows]


def exchange(stack: Stack, rows: Tensor, kept: Tensor, share: float) -> None:
    """Removes this share of the kept weights, the smallest, for those with the largest gradients (Evci et al. 2020)."""
    for i in range(3):
        mask = stack.masks[i][rows].flatten(1)
        weight = stack.weights[i][rows].flatten(1) * mask
        less = (kept[:, i] * (1 - share)).long().clamp(min=1)
        stay = top(weight.abs(), less)
        gradients = torch.where(stay, 0, stack.mean_gradients(rows, i).flatten(1))
        grown = top(gradients, kept[:, i] - stay.sum(1)) & ((kept[:, i] - stay.sum(1)) > 0).unsqueeze(1)
        stack.weights[i][rows] = (weight * stay).view(len(rows), *SHAPES[i])
        stack.velocities[i][rows] = (stack.velocities[i][rows].flatten(1) * stay).view(len(rows), *SHAPES[i])
        stack.masks[i][rows] = (stay | grown).view(len(rows), *SHAPES[i])


def end_rounds(stack: Stack, step: int, validation: Images, rows: list[list[object]]) -> None:
    """Measures the networks whose round ends here."""
    ended = [i for i, net in enumerate(stack.nets) if step in net.starts[1:]]
    if not ended:
        return
    index = rows_of(stack, ended)
    by_average = averaged(stack, ended)
    source = [
        torch.where(by_average, average[index], parameter[index])
        for average, parameter in zip(stack.averages, stack.parameters, strict=True)
    ]
    souped = soups(stack, ended, step)
    masks = [m[index] for m in stack.masks]
    for position, partners in souped.items():
        for tensor in source:
            tensor[position] = tensor[partners].mean(0)
    weights, biases = [w * m for w, m in zip(source[:3], masks, strict=True)], source[3:]
    kept = sum(m.flatten(1).sum(1) for m in masks)
    error, loss = validation.measure(stack, weights, biases)
    for position, i in enumerate(ended):
        net = stack.nets[i]
        if net.way.onward:
            for average, parameter in zip(stack.averages, stack.parameters, strict=True):
                parameter[i] = average[i]
        if net.member:
            continue
        compression = 1 - float(kept[position]) / sum(SIZES)  # type: ignore[index]
        where = [net.way.name, net.seed, net.target, net.starts.index(step, 1), step]
        rows.append([*where, compression, float(error[position]), float(loss[position])])


def averaged(stack: Stack, ended: list[int]) -> Tensor:
    """Which of these networks are measured by the average of their weights."""
    return torch.tensor([stack.nets[i].way.average > 0 for i in ended], device=stack.device).view(-1, 1, 1)


def soups(stack: Stack, ended: list[int], step: int) -> dict[int, list[int]]:
    """Where the first of several networks that trained apart ends its last round: the positions of all of them."""
    found = dict[int, list[int]]()
    for position, i in enumerate(ended):
        net = stack.nets[i]
        if net.way.soup > 1 and not net.member and step == net.starts[-1]:
            found[position] = list(range(position, position + net.way.soup))
    return found


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of these values."""
    return statistics.stdev(values) / math.sqrt(len(values))


def table(out: Path) -> None:
    """Prints by how much each way differs from BASE at the end of its trajectories, with the standard error of it."""
    print("| group | way | networks | error at 25x | at 100x | error, points against base | loss against base |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(out.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            ends = {(row["way"], row["seed"], float(row["target"])): row for row in csv.DictReader(file)}
        keys = sorted({key[1:] for key in ends})
        for way in dict.fromkeys(key[0] for key in ends):
            errors = [
                statistics.mean(float(ends[way, *key]["val_error"]) for key in keys if key[1] == factor)
                for factor in FACTORS
            ]
            differences = [
                [float(ends[way, *key][column]) - float(ends[BASE.name, *key][column]) for key in keys]
                for column in ("val_error", "val_loss")
            ]
            error, loss = (
                f"{statistics.mean(values):+.{digits}f} \u00b1 {standard_error(values):.{digits}f}"
                for values, digits in zip(differences, (3, 4), strict=True)
            )
            both = " | ".join(f"{value:.2f} %" for value in errors)
            print(f"| {path.stem} | {way} | {len(keys)} | {both} | {error} | {loss} |")


def main() -> None:
    """See the top of the file."""
    out = Path(sys.argv[1])
    if sys.argv[2] == "table":
        table(out)
    else:
        run(out, Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))


if __name__ == "__main__":
    main()
