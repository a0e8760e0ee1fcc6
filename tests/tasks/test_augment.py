import pytest
import torch
from toys import fault

from tune_prune.tasks.augment import MARGIN, crop_flip, flip, load_augment

IMAGES = torch.rand(64, 3, 10, 12, generator=torch.Generator().manual_seed(0))


def test_each_image_is_mirrored_or_not() -> None:
    torch.manual_seed(0)
    made = flip(IMAGES)
    same = (made == IMAGES).flatten(1).all(1)
    mirrored = (made == IMAGES.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 15 < int(mirrored.sum()) < 49


def test_each_image_is_shifted_by_at_most_the_margin() -> None:
    torch.manual_seed(0)
    ones = torch.ones(200, 2, 10, 12)
    made = crop_flip(ones)
    assert made.shape == ones.shape
    rows, columns = (made[:, 0].amax(dim).sum(1) for dim in (2, 1))
    assert set(rows.tolist()) == set(range(10 - MARGIN, 11))
    assert set(columns.tolist()) == set(range(12 - MARGIN, 13))
    assert torch.equal(made[:, 0], made[:, 1])  # channels together


def test_crops_are_parts_of_their_own_image() -> None:
    torch.manual_seed(0)
    made = crop_flip(IMAGES)
    for one, image in zip(made, IMAGES, strict=True):
        assert set(one.unique().tolist()) <= {0.0, *image.unique().tolist()}


@pytest.mark.parametrize("name", [None, "none"])
def test_nothing_by_default(name: str | None) -> None:
    assert load_augment(name) is None


def test_names_and_addresses() -> None:
    assert load_augment("flip") is flip
    assert load_augment("torch:relu") is torch.relu
    assert "cannot import nosuch" in fault(lambda: load_augment("nosuch:f"))
