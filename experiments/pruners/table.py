"""Makes the tables and pictures of points.csv: python experiments/pruners/table.py points.csv

Validation error in percent, mean of three seeds; in brackets half the range where it is above 0.05 points. The pictures
whole.png and single_layers.png go beside points.csv.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

PRUNERS = ("mag", "taylor1", "taylor2", "taylor12", "l1", "l2", "emp", "random")
NAMES = {
    "mag": "magnitude (mag)",
    "taylor1": "loss change, first order (taylor1)",
    "taylor2": "loss change, second order (taylor2)",
    "taylor12": "loss change, both orders (taylor12)",
    "l1": "factors learned under an L1 penalty (l1)",
    "l2": "factors learned under an L2 penalty (l2)",
    "emp": "exact loss change of each weight (emp)",
    "random": "random",
}
"""The pruners in words."""

MODELS = {"lenet_300_100": "LeNet-300-100", "lenet5": "LeNet-5"}

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A")


def print_whole(points: pd.DataFrame, model: str, epochs: int) -> None:
    """Prints the errors of every pruner at every ratio of the whole network."""
    part = points[(points.model == model) & (points.epochs == epochs) & (points.layer == "all")]
    if part.empty:
        return
    ratios = sorted(part.ratio.unique())
    print(f"\n{model}, every layer, {'an epoch of retraining' if epochs else 'without retraining'}:\n")
    print("| pruner | " + " | ".join(f"{ratio:g}" for ratio in ratios) + " |\n" + "|---" * (len(ratios) + 1) + "|")
    for pruner in PRUNERS:
        columns = [_format_errors(part[(part.pruner == pruner) & (part.ratio == ratio)].val_error) for ratio in ratios]
        print(f"| {pruner} | " + " | ".join(columns) + " |")


def _format_errors(errors: pd.Series) -> str:
    half = (errors.max() - errors.min()) / 2
    return f"{errors.mean():.2f}" + (f" ({half:.2f})" if half > 0.05 else "")


def print_best(points: pd.DataFrame, model: str, epochs: int) -> None:
    """Prints the pruners with the lowest mean error, and with each those whose seeds' range overlaps its range."""
    part = points[(points.model == model) & (points.epochs == epochs)]
    if part.empty:
        return
    ratios = sorted(part.ratio.unique())
    print(f"\n{model}, {'an epoch of retraining' if epochs else 'without retraining'}, best in:\n")
    print("| layer | " + " | ".join(f"{ratio:g}" for ratio in ratios) + " |\n" + "|---" * (len(ratios) + 1) + "|")
    for layer in dict.fromkeys(part.layer):
        columns = []
        for ratio in ratios:
            here = part[(part.layer == layer) & (part.ratio == ratio)].groupby("pruner").val_error
            if here.ngroups < len(PRUNERS):
                columns.append("")
                continue
            table = here.agg(["mean", "min", "max"]).sort_values("mean")
            first = table.iloc[0]
            ties = table[table["min"] <= first["max"]]
            names = "all" if len(ties) == len(PRUNERS) else ", ".join(map(str, ties.index))
            columns.append(f"{names}: {first['mean']:.2f}")
        print(f"| {layer} | " + " | ".join(columns) + " |")


def print_against_random(points: pd.DataFrame) -> None:
    """Prints where l1, l2, mag and emp are not better than random without retraining, on lenet5."""
    part = points[(points.model == "lenet5") & (points.epochs == 0)]
    means = part.groupby(["layer", "ratio", "pruner"]).val_error.mean().unstack()
    print("\nlenet5 without retraining, where random's mean error is not above that of:\n")
    for pruner in ("l1", "l2", "mag", "emp"):
        worse = means[means["random"] <= means[pruner]]
        where = [
            f"{layer} at {ratio:g} ({row[pruner]:.1f}, random {row['random']:.1f})"
            for (layer, ratio), row in zip(worse.index, worse.to_dict("records"), strict=True)
        ]
        print(f"- {pruner}: {len(worse)} of {len(means)}" + (": " + ", ".join(where) if where else ""))


def draw(points: pd.DataFrame, panels: list[tuple[str, str, int]], path: Path, title: str) -> None:
    """Draws a panel for each (model, layer, epochs): error over ratio, a curve for each pruner; all below one title."""
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, 3.4 * rows + 1.4), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=13)
    for number, (model, layer, epochs) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, 2, number)
        part = points[(points.model == model) & (points.layer == layer) & (points.epochs == epochs)]
        for pruner, colour in zip(PRUNERS, OKABE_ITO, strict=True):
            mean = part[part.pruner == pruner].groupby("ratio").val_error.mean()
            label = NAMES[pruner] if number == 1 else None
            axes.plot([1 - ratio for ratio in mean.index], mean.to_numpy(), "o-", ms=3, color=colour, label=label)
        where = "" if layer == "all" else f", layer {layer}"
        how = "after an epoch of retraining" if epochs else "without retraining"
        axes.set(xscale="log", yscale="log", title=f"{MODELS[model]}{where}, {how}", ylabel="validation error, %")
        axes.invert_xaxis()
        ticks = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
        axes.set_xticks(ticks, [f"{100 * (1 - keep):g}" for keep in ticks])
        axes.minorticks_off()
        if number > len(panels) - 2:
            axes.set_xlabel("weights removed, %")
        axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, ncols=3, fontsize=9)
    figure.savefig(path)


def main() -> None:
    """Prints every table and draws both pictures."""
    path = Path(sys.argv[1])
    points = pd.read_csv(path, dtype={"layer": str})
    for model in dict.fromkeys(points.model):
        for epochs in (0, 1):
            print_whole(points, model, epochs)
            print_best(points, model, epochs)
    print_against_random(points)
    models = list(dict.fromkeys(points.model))
    whole = [(model, "all", epochs) for model in models for epochs in (0, 1)]
    title = "Magnitude is best where a network survives, learned factors where pruning breaks it"
    draw(points, whole, path.parent / "whole.png", f"{title}\n(all layers pruned at the same ratio)")
    single = points[(points.layer != "all") & (points.epochs == 0)]
    panels = list(dict.fromkeys(zip(single.model, single.layer, strict=True)))
    drawn = [(model, layer, 0) for model, layer in panels]
    draw(points, drawn, path.parent / "single_layers.png", "In single layers, too: learned factors at high ratios")


if __name__ == "__main__":
    main()
