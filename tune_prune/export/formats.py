"""The formats in which a pruned model is exported: how each is written, and how it is loaded again.

`tune_prune.load` loads the formats that no other program reads. Inputs are as the model takes them; images in bytes are
divided by 256 first.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry
from tune_prune.export import resizing, sparse_format
from tune_prune.pruning import checkpoint
from tune_prune.pruning.channels.blocks import skipped_blocks
from tune_prune.pruning.channels.norms import kept_by_norm
from tune_prune.tasks.batches import Batch, iterate_tensors, map_leaves
from tune_prune.tasks.models import build, build_on_meta, load_state

Scores = Callable[..., Any]
"""A loaded model: from its inputs to what it returns, or to the tensors in that: one, or a list."""

ANY_MODEL = "--to sparse takes any model"
"""What is right where a format cannot hold a model."""


@dataclass(frozen=True)
class ExportInput:
    """A pruned model to be written: its name, the model, its masks, and a few samples, as `call_model` takes them.

    `compacted` is the model from `compaction.compact`, or the model itself where it is not compacted. `varying` are the
    axes in which each tensor of the inputs differs from batch to batch, beside the first, which counts samples.
    """

    name: str
    model: nn.Module
    masks: Mapping[str, Tensor]
    samples: Batch
    compacted: nn.Module
    varying: Sequence[Collection[int]] = ()


@dataclass(frozen=True)
class Format:
    """A format: the ending of its files, a function that makes their bytes, and one that loads a file as its users do.

    `exact`: the loaded model's outputs equal the written model's bit for bit, not just to rounding. `compaction`:
    "must" where the format stores the compacted model, "may" where it stores the model if that cannot be compacted, ""
    where it always stores the model. `runtime` is what runs a loaded model.
    """

    ending: str
    exact: bool
    write: Callable[[ExportInput], bytes]
    load: Callable[[Path], Scores]
    compaction: str = ""
    runtime: str = "PyTorch"


formats = Registry[Format]("format")


def load(path: str | Path) -> nn.Module:
    """Loads a model from a checkpoint, or from a file of `tune-prune export --to sparse` or `dense`.

        model = tune_prune.load("runs/lenet5-20260101-120000/checkpoints/003.safetensors")

    The model is on the CPU, in evaluation mode. Raises a `UserError` for any other file, and for a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `tune-prune export` and a search write them")
    header, tensors = checkpoint.read_tensors(path, "tune_prune")
    if isinstance(header, dict) and "compact" in header:
        name = str(header.get("model"))
        model = build_on_meta(name) or build(name)
        resizing.skip_blocks(model, header.get("skipped", []), str(path))
        resizing.set_changed_numbers(model, header.get("numbers", {}), str(path))
        resizing.load_resized(model, tensors, str(path))
    elif isinstance(header, dict) and "shapes" in header:
        model = checkpoint.restore(sparse_format.read(path), str(path))[0]
    else:
        model = checkpoint.restore(checkpoint.read(path), str(path))[0]
    return model.eval()


def _write_plain(export_input: ExportInput) -> bytes:
    """The model's state dict, removed weights as zeros; a `UserError` for a model of which that does not tell all."""
    if kept_by_norm(export_input.model):
        why = "its norms leave out channels that are gone, which a state dict cannot say"
        raise UserError(f"--to safetensors: {why}; take --to dense, whose network does not have them, or --to sparse")
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    tensors = {key: value.detach().contiguous().clone() for key, value in export_input.model.state_dict().items()}
    return save(tensors, {"format": "pt", "model": export_input.name})


def _load_plain(path: Path) -> Scores:
    """Builds the model that the file names and loads the weights into it, without this package's readers."""
    with safe_open(path, framework="pt") as file:
        model = build(file.metadata()["model"])
    load_state(model, load_file(path))
    return model.eval()


def _write_sparse(export_input: ExportInput) -> bytes:
    return sparse_format.dumps(export_input.name, export_input.model, export_input.masks)


def _write_dense(export_input: ExportInput) -> bytes:
    tensors = {
        key: value.detach().contiguous().clone() for key, value in resizing.own_state(export_input.compacted).items()
    }
    skipped = skipped_blocks(export_input.compacted)
    numbers = resizing.find_changed_numbers(export_input.model, export_input.compacted)
    header = {"model": export_input.name, "compact": True} | ({"skipped": skipped} if skipped else {})
    header |= {"numbers": numbers} if numbers else {}
    return save(tensors, {"tune_prune": json.dumps(header)})


def _write_pt2(export_input: ExportInput) -> bytes:
    file = io.BytesIO()
    with _exporting(export_input.name, "pt2"):
        torch.export.save(_trace_program(export_input), file)
    return file.getvalue()


def _load_pt2(path: Path) -> Scores:
    program = torch.export.load(path).module()
    return lambda *args, **kwargs: program(*args, **kwargs)


def _write_onnx(export_input: ExportInput) -> bytes:
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if absent:
        raise UserError(f"--to onnx needs {' and '.join(absent)}: pip install 'tune-prune[onnx]'")
    # of a model of one tensor and one tensor of scores; else they are named after the model's arguments
    plain = isinstance(export_input.samples, Tensor)
    inputs, outputs = (["input"], ["scores"]) if plain else (None, None)
    with _exporting(export_input.name, "onnx"):
        program = torch.onnx.export(
            _trace_program(export_input), dynamo=True, verbose=False, input_names=inputs, output_names=outputs
        )
        assert program is not None
        whole: bytes = program.model_proto.SerializeToString()
    return whole


def _load_onnx(path: Path) -> Scores:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has no common base for its errors
        raise UserError(f"--to onnx: ONNX Runtime cannot run this model ({error}); {ANY_MODEL}") from error
    names = [one.name for one in session.get_inputs()]

    def run(*args: Batch, **kwargs: Batch) -> Tensor | list[Tensor]:
        tensors = iterate_tensors([*args, *kwargs.values()])
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        outputs = [torch.from_numpy(output) for output in session.run(None, feed)]
        return outputs[0] if len(outputs) == 1 else outputs

    return run


def _trace_program(export_input: ExportInput) -> torch.export.ExportedProgram:
    """Exports the compacted model's graph, for batches of any size."""
    samples, count, axes = export_input.samples, torch.export.Dim("n"), iter(export_input.varying)

    def list_axes(leaf: object) -> dict[int, Any] | None:
        if not isinstance(leaf, Tensor):
            return None
        return {0: count} | dict.fromkeys(next(axes, ()), torch.export.Dim.AUTO)

    shapes = map_leaves(samples if isinstance(samples, Mapping | tuple) else (samples,), list_axes)
    args, kwargs = ((), dict(samples)) if isinstance(samples, Mapping) else (samples, {})
    args = args if isinstance(args, tuple) else (args,)
    return torch.export.export(export_input.compacted, args, kwargs, dynamic_shapes=shapes)


@contextlib.contextmanager
def _exporting(name: str, to: str) -> Iterator[None]:
    """Keeps PyTorch's exporters quiet, and turns what they raise into a `UserError` with the reason's first line."""
    before = logging.root.manager.disable
    logging.disable()  # the exporter also logs and prints what it raises
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # as of the list of its weights that an LSTM keeps beside them
            yield
    except Exception as error:
        reason = error
        while isinstance(reason.__cause__, Exception):  # the ONNX exporter's own message is advice, over many lines
            reason = reason.__cause__
        first = next(iter(str(reason).strip().splitlines()), type(reason).__name__)
        message = f"--to {to}: {name} cannot be exported by PyTorch with batches of any size ({first}); {ANY_MODEL}"
        raise UserError(message) from error
    finally:
        logging.disable(before)


formats.add("safetensors", Format("-weights.safetensors", True, _write_plain, _load_plain))
formats.add("sparse", Format("-sparse.safetensors", True, _write_sparse, load))
formats.add("dense", Format("-dense.safetensors", False, _write_dense, load, compaction="must"))
formats.add("pt2", Format(".pt2", False, _write_pt2, _load_pt2, compaction="may", runtime="torch.export"))
formats.add("onnx", Format(".onnx", False, _write_onnx, _load_onnx, compaction="may", runtime="ONNX Runtime"))
