"""Coverage-guided fuzzing of what reads files: .conf files, spaces, checkpoints, run directories, cached statistics.

    pip install atheris
    python experiments/fuzz/readers.py READER [SECONDS]

READER is one of conf, space, checkpoint, sparse, json, toml, run, record, study, cache. A reader may return what it
read or raise a `UserError` of one line; anything else ends the run, and the input is in a file crash-*. A run begins
with what seeds.py makes and with what earlier runs left in corpus/READER, which git ignores.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import optuna
import torch

with atheris.instrument_imports(include=["tune_prune"]):
    import run_directory
    from seeds import make_context, write_seeds  # in here, since what it imports first is instrumented, too

    from tune_prune.common import parsing
    from tune_prune.common.errors import UserError
    from tune_prune.export import sparse_format
    from tune_prune.hpo import run_files, space_reader
    from tune_prune.pruning import checkpoint, statistics, statistics_cache
    from tune_prune.results import conf, records
    from tune_prune.results.run_results import SearchDescription, read_run

HERE = Path(__file__).parent
Once = Callable[[bytes], object]
"""Reads one input; raises what the reader raises."""

CELLS = (
    None, -1, 0, 1, 2**62, 0.5, -1.0, float("inf"), "", "null", "NaN", "1e999", "[]", "{}", '"x"', "[[", "true", "-3",
    "9" * 50, "RUNNING", "FAIL", "MAXIMIZE", "INF_POS", "keep/2", "pruner", "parent", "starts", b"\xff",
)  # fmt: skip
"""Values that replace a cell of study.db, besides any text."""


def of_file(read: Callable[[Path], object]) -> Callable[[Path], Once]:
    """A reader of a file by itself."""

    def make(folder: Path) -> Once:
        def once(data: bytes) -> None:
            (folder / "file").write_bytes(data)
            read(folder / "file")

        return once

    return make


def of_text(parse: Callable[[str], object]) -> Callable[[Path], Once]:
    """A parser of a text, which raises a ValueError of one line."""

    def make(folder: Path) -> Once:
        def once(data: bytes) -> None:
            try:
                parse(data.decode("utf-8", "replace"))
            except ValueError as error:
                raise UserError(str(error)) from error

        return once

    return make


def read_checkpoint(path: Path) -> None:
    """Reads a checkpoint as `tune-prune test` does: nothing is run that a file names."""
    saved = checkpoint.read(path)
    checkpoint.check_trusted(path, None)
    checkpoint.restore(saved, str(path))


def make_run(folder: Path) -> Once:
    """Reads run.json as `--resume` does, and as `tune-prune report` does."""
    run_directory.begin(folder)
    space = space_reader.read(folder / "space.toml")

    def once(data: bytes) -> None:
        (folder / "run.json").write_bytes(data)
        run_files.read_acc_tradeoff(folder, space)
        run_files.resume_run(folder, {}, {})

    return once


def make_record(folder: Path) -> Once:
    """Reads the record of a trial, makes the tables of the run with it, and takes the search up again."""

    def write_record(data: bytes) -> None:
        path = folder / "results" / "1.json"
        path.write_bytes(data)
        records.read(path)
        read_run(folder, SearchDescription("lenet_300_100", "mnist", 0.5))

    return _resume_after(folder, write_record)


def make_study(folder: Path) -> Once:
    """Takes a search up again whose study holds other values in up to three cells."""

    def write_cells(data: bytes) -> None:
        given = atheris.FuzzedDataProvider(data)
        cells = []
        for _ in range(given.ConsumeIntInRange(1, 3)):
            place = [given.ConsumeIntInRange(0, 255) for _ in range(3)]
            value = given.ConsumeIntInRange(0, len(CELLS))
            text = given.ConsumeUnicodeNoSurrogates(40)
            cells.append((*place, CELLS[value] if value < len(CELLS) else text))
        run_directory.write_cells(folder / "study.db", cells)

    return _resume_after(folder, write_cells)


def _resume_after(folder: Path, change: Callable[[bytes], None]) -> Once:
    """Makes a search, and a reader that changes its files by the input and takes the search up again."""
    run_directory.begin(folder)
    run_directory.search(folder)
    study, others = (folder / "study.db").read_bytes(), _keep_files(folder / "results")

    def once(data: bytes) -> None:
        (folder / "study.db").write_bytes(study)
        try:
            change(data)
            run_directory.resume(folder)
        finally:
            _put_back(folder / "results", others)

    return once


def make_cache(folder: Path) -> Once:
    """Loads cached statistics: whatever the file holds, the values are those that were measured."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    statistics.PROBES = 1  # measured anew for most inputs
    context = make_context()
    measured = statistics_cache.load_or_measure(["hessian"], context)["hessian"]
    [path] = statistics_cache.cache_dir().iterdir()

    def once(data: bytes) -> None:
        path.write_bytes(data)
        loaded = statistics_cache.load_or_measure(["hessian"], context)["hessian"]
        assert all(torch.equal(loaded[label], value) for label, value in measured.items()), loaded

    return once


def _keep_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _put_back(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


READERS = {
    "conf": of_file(conf.read),
    "space": of_file(space_reader.read),
    "checkpoint": of_file(read_checkpoint),
    "sparse": of_file(sparse_format.read),
    "json": of_text(parsing.parse_json),
    "toml": of_text(parsing.parse_toml),
    "run": make_run,
    "record": make_record,
    "study": make_study,
    "cache": make_cache,
}


def main() -> None:
    """Fuzzes one reader."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "150"
    corpus = HERE / "corpus" / name
    write_seeds(name, corpus)
    memory = Path("/dev/shm")  # where there is one, files are written faster
    read = READERS[name](Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)))

    def read_once(data: bytes) -> None:
        try:
            read(data)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, error

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    limits = ["-max_len=8192", "-timeout=60", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", *limits], read_once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
