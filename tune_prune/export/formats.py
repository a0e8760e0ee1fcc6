"""The forms in which a pruned model is handed to other programs: how each is written, and how it is loaded again.

`tune_prune.load` is the loader of what no other program reads. Inputs are float32 as the model takes them; those of
images in bytes are divided by 256 first.
"""

import contextlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry
from tune_prune.export import resizing, sparse_format
from tune_prune.pruning import checkpoint
from tune_prune.tasks.models import build

Scores = Callable[[Tensor], Tensor]
"""Samples, float32 [n, ...], to class scores, float32 [n, classes]."""


@dataclass(frozen=True)
class ExportInput:
    """A pruned model that is to be written: its name, itself, its masks, and a few samples, float32 [n, ...].

    `smaller` computes the same without what nothing computes or reads; where that is not known, it is the model.
    """

    name: str
    model: nn.Module
    masks: Mapping[str, Tensor]
    samples: Tensor
    smaller: nn.Module


@dataclass(frozen=True)
class Format:
    """A form: how its files end, whether scores come back bit for bit, its bytes, and what its program makes of them.

    `smaller` says whether the network is made smaller first: "must" where that is all there is to it, "may", or "".
    """

    ending: str
    exact: bool
    write: Callable[[ExportInput], bytes]
    load: Callable[[Path], Scores]
    smaller: str = ""


formats = Registry[Format]("format")


def load(path: str | Path) -> nn.Module:
    """A model from a checkpoint, or from a file of `tune-prune export --to sparse` or `dense`, in evaluation mode.

    Raises a `UserError` for any other file, and for a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `tune-prune export` and a search write them")
    facts, tensors = checkpoint.read_tensors(path, "tune_prune")
    if isinstance(facts, dict) and "smaller" in facts:
        model = build(str(facts.get("model")))
        resizing.load_resized(model, tensors, str(path))
    elif isinstance(facts, dict) and "shapes" in facts:
        model = checkpoint.restore(sparse_format.read(path), str(path))[0]
    else:
        model = checkpoint.restore(checkpoint.read(path), str(path))[0]
    return model.eval()


def _plain(subject: ExportInput) -> bytes:
    """The state dict as it is, removed weights as zeros; what any program does that loads weights into the model."""
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    tensors = {key: value.detach().contiguous().clone() for key, value in subject.model.state_dict().items()}
    return save(tensors, {"format": "pt", "model": subject.name})


def _load_plain(path: Path) -> Scores:
    with safe_open(path, framework="pt") as file:
        model = build(file.metadata()["model"])
    model.load_state_dict(load_file(path))
    return model.eval()


def _sparse(subject: ExportInput) -> bytes:
    return sparse_format.dumps(subject.name, subject.model, subject.masks)


def _dense(subject: ExportInput) -> bytes:
    tensors = {key: value.detach().contiguous().clone() for key, value in subject.smaller.state_dict().items()}
    return save(tensors, {"tune_prune": json.dumps({"model": subject.name, "smaller": True})})


def _pt2(subject: ExportInput) -> bytes:
    file = io.BytesIO()
    torch.export.save(_program(subject), file)
    return file.getvalue()


def _load_pt2(path: Path) -> Scores:
    program = torch.export.load(path).module()
    return lambda inputs: program(inputs)


def _onnx(subject: ExportInput) -> bytes:
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if absent:
        raise UserError(f"--to onnx needs {' and '.join(absent)}: pip install 'tune-prune[onnx]'")
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        program = torch.onnx.export(
            _program(subject), dynamo=True, verbose=False, input_names=["input"], output_names=["scores"]
        )
    assert program is not None
    whole: bytes = program.model_proto.SerializeToString()
    return whole


def _load_onnx(path: Path) -> Scores:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(["scores"], {"input": inputs.numpy()})[0])


def _program(subject: ExportInput) -> torch.export.ExportedProgram:
    """The graph, for batches of any size; a `UserError` of one line where PyTorch has many to say."""
    before = logging.root.manager.disable
    logging.disable()  # it logs and prints what it raises
    any_batch = ({0: torch.export.Dim("n")},)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return torch.export.export(subject.smaller, (subject.samples,), dynamic_shapes=any_batch)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        told = f"{subject.name} cannot be exported by PyTorch with batches of any size ({first})"
        raise UserError(told) from error
    finally:
        logging.disable(before)


formats.add("safetensors", Format("-weights.safetensors", True, _plain, _load_plain))
formats.add("sparse", Format("-sparse.safetensors", True, _sparse, load))
formats.add("dense", Format("-dense.safetensors", False, _dense, load, smaller="must"))
formats.add("pt2", Format(".pt2", False, _pt2, _load_pt2, smaller="may"))
formats.add("onnx", Format(".onnx", False, _onnx, _load_onnx, smaller="may"))
