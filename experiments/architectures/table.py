"""Makes the tables of README.md from results.csv: `python table.py` puts them between the two marks there."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import run

README = Path(__file__).parent / "README.md"
LEFT_OUT = re.compile(r" \((\w+), ([\d,]+)\)")

Rows = list[dict[str, str]]


def main() -> None:
    """Replaces the tables in README.md."""
    rows = list(run.read().values())
    parts = [summarise(rows), "Failures:", list_failures(rows), "What is left out:", list_left_out(rows)]
    changing = "Layers that change their weight in `forward`, and so compute with other numbers than zeros:"
    tables = "\n\n".join([*parts, changing, list_changing(rows)])
    text = README.read_text(encoding="utf-8")
    start, end = "<!-- tables -->\n", "<!-- end -->"
    before, after = text.partition(start)[0], text.partition(end)[2]
    README.write_text(f"{before}{start}\n{tables}\n\n{end}{after}", encoding="utf-8")


def summarise(rows: Rows) -> str:
    """A row a family: how many models, how many pass, what is counted, sizes of files, the largest model."""
    families = defaultdict[str, Rows](list)
    for row in rows:
        families[row["family"]].append(row)
    lines = [
        "| family | models | all checks hold | layers | weights counted | all counted in | largest, parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, of_family in families.items():
        found = [row for row in of_family if row["layers"]]
        layers = [int(row["layers"]) for row in found]
        shares = [int(row["counted"]) / int(row["total"]) for row in found]
        passed = sum(row["result"] == "ok" for row in of_family)
        whole = sum(share == 1 for share in shares)
        largest = max(int(row["parameters"]) for row in found)
        lines.append(
            f"| {family} | {len(of_family)} | {passed} | {min(layers)} to {max(layers)} | {100 * min(shares):.1f} to "
            f"{100 * max(shares):.0f} % | {whole} | {largest:,} |"
        )
    return "\n".join(lines)


def list_failures(rows: Rows) -> str:
    """A row a model that failed, with the reason."""
    failed = [row for row in rows if row["result"] != "ok"]
    return "\n".join(f"- `{row['key']}`: {row['result']}" for row in failed) if failed else "- none"


def list_changing(rows: Rows) -> str:
    """A row a model that has such layers, with their classes."""
    changing = [row for row in rows if row["changing"]]
    return "\n".join(f"- `{row['key']}`: `{row['changing']}`" for row in changing) if changing else "- none"


def list_left_out(rows: Rows) -> str:
    """The classes of modules whose weights cannot be pruned: in how many models, and the largest share of one's."""
    models, shares = Counter[str](), defaultdict[str, float](float)
    for row in rows:
        weights = Counter[str]()
        for kind, count in LEFT_OUT.findall(row["left_out"]):
            weights[kind] += int(count.replace(",", ""))
        for kind, count in weights.items():
            models[kind] += 1
            shares[kind] = max(shares[kind], count / int(row["total"]))
    lines = ["| class | models | largest share of a model's weights |", "|---|---|---|"]
    ordered = sorted(models, key=lambda kind: -shares[kind])
    return "\n".join([*lines, *(f"| `{kind}` | {models[kind]} | {100 * shares[kind]:.2g} % |" for kind in ordered)])


if __name__ == "__main__":
    main()
