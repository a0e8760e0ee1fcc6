"""Searches that predict latency, from the table to the front; no duration is asserted."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import toys
from searches import SPACE, Trials, points, resumed, searched, summary_of
from toys import fault

from tune_prune.cli.output import silent
from tune_prune.export.latency.programs import record_program
from tune_prune.export.latency.table import LatencyTable, TimedNetwork, fingerprint, read_table, write_table
from tune_prune.hpo.space_reader import parse, read
from tune_prune.workflows.latency import NETWORKS, draw_networks, measure_latency


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(SPACE)
    return path


def test_latency_is_predicted_where_it_is_asked_for(trials: Trials, toml: Path) -> None:
    toml.write_text(SPACE.replace("acc_tradeoff = 5", 'acc_tradeoff = 5\nobjectives = ["latency"]'))
    code, run_dir = searched(toml, budget=3)
    assert code == 0
    table, dense = points(run_dir), read_table(run_dir / "latency.json").dense_seconds
    assert (table["latency"] > 0).all()
    assert table["latency_ms"].tolist() == pytest.approx((1000 * dense * table["latency"]).tolist())
    assert all(member["latency"] > 0 and member["latency_measured"] > 0 for member in summary_of(run_dir)["front"])
    # one that goes on reads the same table, and measures what is there already no second time
    front, written = (run_dir / "latency_front.json").read_bytes(), (run_dir / "latency.json").read_bytes()
    assert resumed(run_dir, budget=3) == 0
    assert (run_dir / "latency_front.json").read_bytes() == front
    assert (run_dir / "latency.json").read_bytes() == written


def test_a_table_of_another_device(trials: Trials, toml: Path) -> None:
    toml.write_text(SPACE.replace("acc_tradeoff = 5", 'acc_tradeoff = 5\nobjectives = ["latency"]'))
    own = toml.parent / "own.json"
    found = measure_latency(read(toml), 2, torch.device("cpu"), own, None, silent)
    assert (found["table"], found["batch"]) == (str(own), 2)
    assert found["dense_ms"] == 1000 * read_table(own).dense_seconds
    table = replace(read_table(own), device="a phone")
    write_table(toml.parent / "phone.json", table)
    assert searched(toml, budget=3, latency_on=str(toml.parent / "phone.json"))[0] == 0
    assert read_table(toml.parent / "run" / "latency.json") == table
    assert "latency_measured" not in pd.read_csv(toml.parent / "run" / "pareto.csv")  # that is for the phone to measure


def test_tables_that_do_not_fit_a_search(trials: Trials, toml: Path) -> None:
    table = toml.parent / "table.json"
    said = fault(lambda: searched(toml, budget=3, latency_on=str(table)))
    assert said.startswith(f"--latency-on: {toml} neither minimises latency nor limits it; ")
    toml.write_text(SPACE.replace("acc_tradeoff = 5", "acc_tradeoff = 5\nat_most = {latency_ms = 5}"))
    said = fault(lambda: searched(toml, budget=3, latency_on=str(table)))
    assert said == f"--latency-on {table}: No such file or directory; `tune-prune latency` makes a table"
    program = record_program(toys.Conv(), torch.zeros(1, 1, 8, 8))
    network = TimedNetwork(program.costs, [1.0] * len(program.costs), 1.0)
    write_table(table, LatencyTable(fingerprint(program.costs), 1, "a phone", "2", [network, network]))
    said = fault(lambda: searched(toml, budget=3, latency_on=str(table)))
    assert said.startswith(f"--latency-on {table}: is of another model than toys:mlp; ")
    assert not (toml.parent / "run").exists()


def test_latency_of_a_model_that_cannot_be_traced(trials: Trials, toml: Path) -> None:
    text = SPACE.replace("acc_tradeoff = 5", "acc_tradeoff = 5\nat_most = {latency = 0.5}")
    text = re.sub(r'"2" = .*\n"4" = .*', '"*" = {low = 0.1, high = 0.9}', text)
    toml.write_text(text.replace("toys:mlp", "toys:Deciding"))
    said = fault(lambda: searched(toml, budget=3))
    assert said.startswith(f"{toml}: latency cannot be predicted of toys:Deciding: the model branches on data, in ")
    assert not (toml.parent / "run").exists()


def test_a_table_reaches_from_the_lowest_ratios_to_the_highest() -> None:
    space = parse(SPACE.replace("[space]", '[space]\ngranularity = "filter"\nexclude = ["4"]'), "toy", "toy.toml")
    space = replace(space, ratios=space.ratios[:1])  # layer 2 loses 0.1 to 0.95 of its 16 neurons
    networks = draw_networks(space, toys.mlp(), toys.images().train, {"2": (16, 64), "4": (4, 16)})
    left = [network[1].weight.shape[0] for network in networks]
    assert len(left) == NETWORKS
    assert max(left[:5]) >= 13
    assert min(left[-5:]) == 1
    assert sum(left[:10]) > sum(left[10:20]) > sum(left[20:])
