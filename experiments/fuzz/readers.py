"""Coverage-guided fuzzing of what reads files: .conf files, spaces, checkpoints, sparse files.

    pip install atheris
    python experiments/fuzz/readers.py conf|space|checkpoint|sparse [SECONDS]

A reader may return what it read or raise a `UserError` of one line; anything else ends the run, and the input is in a
file crash-*. A run begins with what seeds.py makes and with what earlier runs left in corpus/READER, which git ignores.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tune_prune"]):
    from seeds import write_seeds  # in here, since what it imports first is instrumented, too

    from tune_prune.common.errors import UserError
    from tune_prune.export import sparse_format
    from tune_prune.hpo import space_reader
    from tune_prune.pruning import checkpoint
    from tune_prune.results import conf

HERE = Path(__file__).parent


def read_checkpoint(path: Path) -> None:
    """Reads a checkpoint as `tune-prune test` does: nothing is run that a file names."""
    saved = checkpoint.read(path)
    checkpoint.check_trusted(path, None)
    checkpoint.restore(saved, str(path))


READERS = {"conf": conf.read, "space": space_reader.read, "checkpoint": read_checkpoint, "sparse": sparse_format.read}


def main() -> None:
    """Fuzzes one reader."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "150"
    reader, corpus = READERS[name], HERE / "corpus" / name
    write_seeds(name, corpus)
    path = Path(tempfile.mkdtemp()) / "file"

    def read_once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reader(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, error

    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=8192"], read_once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
