from tune_prune.tasks.library_names import list_library_data, list_library_models
from tune_prune.tasks.models import build


def test_models_of_torchvision_have_addresses_that_can_be_built() -> None:
    found = list_library_models()
    assert found["squeezenet1_1"] == "torchvision:squeezenet1_1"
    assert sum(weight.numel() for weight in build(found["squeezenet1_1"]).parameters()) > 10**6


def test_data_sets_of_torchvision_are_classes_of_data_alone() -> None:
    found = list_library_data()
    assert found["CIFAR10"] == "torchvision:CIFAR10(root='data')"
    assert "wrap_dataset_for_transforms_v2" not in found
