import pytest
import torch
from torch import Tensor
from toys import fault, seeded

from tune_prune.tasks.augment import MARGIN, affine, crop_flip, flip, load_augment

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
    assert load_augment("affine") is affine
    assert load_augment("torch:relu") is torch.relu
    assert "cannot import nosuch" in fault(lambda: load_augment("nosuch:f"))


# Rotations, scales and shifts

AXIS = torch.arange(28) - 13.5


def spots(n: int, x: float, y: float) -> Tensor:
    """n copies of one soft spot, [n, 1, 28, 28]; x and y in pixels from the middle."""
    spot = torch.exp(-((AXIS - x) ** 2) / 4).outer(torch.ones(28)).T * torch.exp(-((AXIS - y) ** 2) / 4)[:, None]
    return spot.expand(n, 1, 28, 28).contiguous()


def centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where the spots are: x [n], y [n]."""
    mass = images.sum((1, 2, 3))
    return (images.sum((1, 2)) @ AXIS) / mass, (images.sum((1, 3)) @ AXIS) / mass


def test_the_spot_is_where_it_should_be() -> None:
    x, y = centres(spots(2, 5, -3))
    assert torch.allclose(x, torch.tensor(5.0), atol=1e-3)
    assert torch.allclose(y, torch.tensor(-3.0), atol=1e-3)


def test_no_distortion_is_the_identity() -> None:
    images = torch.rand(3, 2, 6, 9)
    assert torch.allclose(affine(images, seeded(0), degrees=0, scale=0, shift=0), images, atol=1e-6)


def test_shifts_are_pixels_both_ways() -> None:
    x, y = centres(affine(spots(200, 1, 2), seeded(0), degrees=0, scale=0, shift=3))
    for moved in (x - 1, y - 2):
        assert -3.05 < moved.min() < -2.8
        assert 2.8 < moved.max() < 3.05


def test_rotation_keeps_the_distance_from_the_middle() -> None:
    x, y = centres(affine(spots(200, 6, 0), seeded(0), degrees=20, scale=0, shift=0))
    assert torch.allclose(x.hypot(y), torch.tensor(6.0), atol=0.05)
    angle = torch.atan2(y, x).rad2deg()
    assert -20.2 < angle.min() < -19
    assert 19 < angle.max() < 20.2


def test_scales_are_shares() -> None:
    x, y = centres(affine(spots(200, 6, 6), seeded(0), degrees=0, scale=0.2, shift=0))
    for scaled in (x / 6, y / 6):
        assert 1 / 1.21 < scaled.min() < 1 / 1.17
        assert 1 / 0.83 < scaled.max() < 1 / 0.79


def test_outside_is_zero() -> None:
    moved = affine(torch.ones(50, 1, 28, 28), seeded(0), degrees=0, scale=0, shift=10)
    assert moved.amin((1, 2, 3)).median() == 0
    assert moved.max() <= 1 + 1e-5


def test_the_seed_decides() -> None:
    images = torch.rand(3, 1, 8, 8)
    one, again, other = (affine(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
