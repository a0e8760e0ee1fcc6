"""Norms that leave out channels compute what a smaller norm would, and files tell of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_networks import RmsNorm, WrittenNorm, remove_at_random
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from toys import fault

import tune_prune
from tune_prune.export import sparse_format
from tune_prune.export.compaction import compact, find_removable
from tune_prune.export.exporter import export
from tune_prune.export.formats import formats
from tune_prune.export.resizing import load_resized, own_state
from tune_prune.pruning import checkpoint
from tune_prune.pruning.channels.finding import find_channels
from tune_prune.pruning.channels.norms import keep_all_in_norm, keep_in_norm, kept_by_norm, set_kept_by_norm
from tune_prune.tasks.splits import Data, Split


class Normed(nn.Module):
    """[n, 1, 8, 8] -> [n, 4], with a norm over the channels of `first`."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.first, self.norm, self.scores = nn.Linear(64, 12), norm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.norm(self.first(x.flatten(1))))


class WithRms(Normed):
    """The same with an RMS norm."""

    def __init__(self) -> None:
        super().__init__(RmsNorm)


def pruned(norm: Callable[[int], nn.Module] = nn.LayerNorm) -> tuple[Normed, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    model, x = Normed(norm).eval(), torch.randn(5, 1, 8, 8)
    for parameter in model.norm.parameters():
        nn.init.normal_(parameter)
    return model, remove_at_random(model, find_removable(model, x).groups, 0.5), x


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "layer norm": nn.LayerNorm,
    "of images": LayerNorm2d,
    "RMS norm": nn.RMSNorm,
    "RMS norm by hand": RmsNorm,
    "as Gemma's": lambda channels: RmsNorm(channels, 1.0),
    "layer norm by hand": WrittenNorm,
    "of images by hand": lambda channels: WrittenNorm(channels, 1),
    "of images, of one group": lambda channels: nn.GroupNorm(1, channels),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_a_smaller_norm_computes(kind: str) -> None:
    kept = torch.tensor([True, False, True, True, False])
    norm, small = KINDS[kind](5), KINDS[kind](3)
    with torch.no_grad():
        for of_norm, of_small in zip(norm.parameters(), small.parameters(), strict=True):
            nn.init.normal_(of_norm)
            of_norm[~kept] = 0
            of_small.copy_(of_norm[kept])
    is_image, of_kind = kind.startswith("of images"), type(norm)
    x, axis = (torch.randn(2, 5, 4, 4), 1) if is_image else (torch.randn(2, 4, 5), 2)
    x.index_fill_(axis, (~kept).nonzero().flatten(), 0)
    whole = norm(x)
    keep_in_norm(norm, kept)
    index = kept.nonzero().flatten()
    torch.testing.assert_close(norm(x).index_select(axis, index), small(x.index_select(axis, index)))
    assert not norm(x).index_select(axis, (~kept).nonzero().flatten()).any()
    keep_all_in_norm(norm)
    assert type(norm) is of_kind
    assert torch.equal(norm(x), whole)


def of_images(norm: nn.Module) -> nn.Module:
    """[n, 2, 5, 5] -> [n, 2, 5, 5], with a norm over twelve channels."""
    return nn.Sequential(nn.Conv2d(2, 12, 1), norm, nn.Conv2d(12, 2, 1)).eval()


def test_whole_groups_of_a_group_norm_leave() -> None:
    torch.manual_seed(0)
    model, x = of_images(nn.GroupNorm(4, 12)), torch.randn(2, 2, 5, 5)
    for parameter in model[1].parameters():
        nn.init.normal_(parameter)
    (group,) = find_removable(model, x).groups
    assert (group.count, group.norms) == (4, ())
    assert group.members[0].channels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    remove_at_random(model, [group], 0.5)
    small = compact(model, x)
    assert (small[1].num_groups, small[1].num_channels, small[1].weight.shape) == (2, 6, (6,))
    torch.testing.assert_close(small(x), model(x))
    again = of_images(nn.GroupNorm(4, 12))
    load_resized(again, own_state(small), "a")
    assert torch.equal(again(x), small(x))


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 12), nn.GroupNorm(12, 12), nn.InstanceNorm2d(12, affine=True)])
def test_single_channels_leave_a_norm_of_one_group_or_of_a_channel_each(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = of_images(norm), torch.randn(2, 2, 5, 5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    (group,) = find_removable(model, x).groups
    assert group.count == 12
    remove_at_random(model, [group], 0.75)
    small = compact(model, x)
    assert small[1].weight.shape == (3,)
    torch.testing.assert_close(small(x), model(x))


def test_a_norm_without_weights_keeps_its_channels() -> None:
    model = Normed(lambda channels: nn.LayerNorm(channels, elementwise_affine=False))
    assert find_channels(model, torch.randn(2, 64)).staying["first"] == "native_layer_norm in norm needs all of them"


def test_a_mean_that_no_norm_computes_keeps_its_channels() -> None:
    class Mean(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.scale = nn.Linear(1, channels)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale(x.mean(-1, keepdim=True))

    assert find_channels(Normed(Mean), torch.randn(2, 64)).staying["first"] == "mean in norm needs all of them"


@pytest.mark.parametrize(("name", "norm"), [("test_norms:Normed", nn.LayerNorm), ("test_norms:WithRms", RmsNorm)])
def test_a_checkpoint_tells_of_it(tmp_path: Path, name: str, norm: type[nn.Module]) -> None:
    model, found, x = pruned(norm)
    assert kept_by_norm(model)["norm"].sum() == 6
    checkpoint.write(tmp_path / "a.safetensors", name, model, found)
    again, _ = checkpoint.restore(checkpoint.read(tmp_path / "a.safetensors"), "a")
    assert torch.equal(again.eval()(x), model(x))
    (tmp_path / "b.safetensors").write_bytes(sparse_format.dumps(name, model, found))
    assert torch.equal(tune_prune.load(tmp_path / "b.safetensors")(x), model(x))
    set_kept_by_norm(again, {})
    assert not torch.equal(again(x), model(x))


@pytest.mark.parametrize("kept", [torch.ones(11, dtype=torch.bool), torch.ones(12)])
def test_a_checkpoint_of_another_norm(tmp_path: Path, kept: Tensor) -> None:
    model, found, _ = pruned()
    notes = checkpoint.Checkpoint("test_norms:Normed", model.state_dict(), found, norms={"norm": kept})
    said = fault(lambda: checkpoint.restore(notes, "a"))
    assert said == "a: channels of norm norm do not fit model test_norms:Normed"


@pytest.mark.parametrize("to", ["sparse", "dense", "pt2"])
def test_it_is_exported(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, found, _ = pruned()
    checkpoint.write(tmp_path / "a.safetensors", "test_norms:Normed", model, found)
    split = Split(torch.rand(20, 1, 8, 8), torch.randint(4, (20,)))
    report = export(Path("a.safetensors"), to, Data(split, split, lambda: split), Path("b" + formats[to].ending), print)
    assert report.agree == 20


def test_a_state_dict_cannot_tell_of_it(tmp_path: Path) -> None:
    model, found, _ = pruned()
    checkpoint.write(tmp_path / "a.safetensors", "test_norms:Normed", model, found)
    split = Split(torch.rand(20, 1, 8, 8), torch.randint(4, (20,)))
    data = Data(split, split, lambda: split)
    said = fault(lambda: export(tmp_path / "a.safetensors", "safetensors", data, tmp_path / "b.safetensors", print))
    assert said.startswith("--to safetensors: its norms leave out channels")


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm, RmsNorm])
def test_the_smaller_network_has_a_plain_norm(kind: type[nn.Module]) -> None:
    model, _, x = pruned(kind)
    small = compact(model, x)
    assert type(small.norm) is kind
    assert small.norm.weight.shape == (6,)
    assert getattr(small.norm, "normalized_shape", (6,)) == (6,)
    torch.testing.assert_close(small(x), model(x))
