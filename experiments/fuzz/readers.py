"""Coverage-guided fuzzing of what reads files: .conf, spaces, checkpoints, sparse files.

    pip install atheris
    python experiments/fuzz/readers.py conf|space|checkpoint|sparse [SECONDS]

A reader may return what it read or raise a `UserError` of one line; anything else ends it, with the input in a file
crash-*. What it learns goes to corpus/READER, from which the next run begins.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tune_prune"]):
    from tune_prune.common.errors import UserError
    from tune_prune.export import sparse_format
    from tune_prune.hpo import space_reader
    from tune_prune.pruning import checkpoint, masks
    from tune_prune.results import conf
    from tune_prune.tasks.models import build

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def read_checkpoint(path: Path) -> None:
    """As `tune-prune test` does: nothing is run that a file names."""
    saved = checkpoint.read(path)
    checkpoint.check_trusted(path, None)
    checkpoint.restore(saved, str(path))


READERS = {"conf": conf.read, "space": space_reader.read, "checkpoint": read_checkpoint, "sparse": sparse_format.read}


def seeds(reader: str) -> list[bytes]:
    """What a reader is begun with: the files of the package."""
    if reader == "conf":
        return [path.read_bytes() for path in (ROOT / "tune_prune" / "workflows" / "confs").glob("*.conf")]
    if reader == "space":
        return [path.read_bytes() for path in (ROOT / "search_spaces").glob("*.toml")]
    model = build("lenet_300_100")
    mask = {label: kept.zero_() for label, kept in masks.dense_masks(model).items()}
    masks.apply(model, mask)
    if reader == "sparse":
        return [sparse_format.dumps("lenet_300_100", model, mask)]
    return [b"\x08\0\0\0\0\0\0\0{}      ", checkpoint.dumps("lenet_300_100", model, {}, {})[:4000]]


def main() -> None:
    """Fuzz one reader."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "150"
    reader, corpus = READERS[name], HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    path = Path(tempfile.mkdtemp()) / "file"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reader(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, error

    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=8192"], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
