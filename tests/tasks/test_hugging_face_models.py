from pathlib import Path

import pytest
import torch
from toys import fault

from tune_prune.pruning import masks
from tune_prune.tasks.hugging_face_models import is_hugging_face_model
from tune_prune.tasks.models import build

SIZES = "vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32"
BERT = f"transformers:BertForSequenceClassification({SIZES}, num_labels=3)"


def test_a_model_of_a_configuration() -> None:
    model = build(BERT)
    assert model(torch.zeros(2, 5, dtype=torch.long)).logits.shape == (2, 3)
    assert masks.shapes(model)["classifier"] == (3, 16)


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "AutoModelForSequenceClassification"])
def test_a_model_from_a_folder(tmp_path: Path, kind: str) -> None:
    made = build(BERT)
    made.save_pretrained(tmp_path)
    model = build(f"transformers:{kind}(name={str(tmp_path)!r})")
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in model.state_dict().items())
    assert build(f"transformers:{kind}(name={str(tmp_path)!r}, num_hidden_layers=1)").config.num_hidden_layers == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("transformers:BertFor", "transformers has no model 'BertFor'"),
        ("transformers:AutoModel", "give name=, a folder or a name of Hugging Face's hub"),
        ("transformers:BertModel(hidden=3)", "BertConfig has no hidden"),
        ("transformers:BertModel(name='/nosuch/folder')", "fails"),
        ("transformers:BertConfig(hidden_size=16)", "transformers:BertConfig"),
    ],
)
def test_what_cannot_be_made(name: str, said: str) -> None:
    message = fault(lambda: build(name))
    assert said in message
    assert f"model {name!r}" in message


def test_classes_alone_are_models_of_the_library() -> None:
    assert is_hugging_face_model("transformers:BertModel(name='x')")
    assert not is_hugging_face_model("transformers:pipeline")
    assert not is_hugging_face_model("mine:BertModel")


def test_a_model_of_timm() -> None:
    assert build("timm:resnet18(num_classes=3)")(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert "timm.models has no 'resnet19'" in fault(lambda: build("timm:resnet19"))
