"""What a new user may have: a folder of images by class, and a ResNet-18 of torchvision that was trained on them.

    python experiments/channels/clothes.py FOLDER      # writes FOLDER/clothes and FOLDER/resnet18.pth

The images are the first 10,000 of Fashion-MNIST, as Debian's dataset-fashion-mnist installs it, at 32 pixels: 6,000 for
training, 2,000 each for validation and the test.
"""

import gzip
import sys
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

SOURCE = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
PARTS = {"train": range(6000), "val": range(6000, 8000), "test": range(8000, 10_000)}
SIZE, EPOCHS, LR = 32, 6, 0.1


def read(name: str, header: int) -> torch.Tensor:
    """The bytes of an IDX file that follow its header."""
    return torch.frombuffer(bytearray(gzip.decompress((SOURCE / name).read_bytes())), dtype=torch.uint8, offset=header)


def write_images(folder: Path) -> None:
    """Writes the images of each part, by class."""
    images, classes = read("train-images-idx3-ubyte.gz", 16).view(-1, 28, 28), read("train-labels-idx1-ubyte.gz", 8)
    for part, numbers in PARTS.items():
        for number in numbers:
            into = folder / part / NAMES[int(classes[number])]
            into.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(images[number].numpy()).convert("RGB").resize((SIZE, SIZE))
            image.save(into / f"{number}.png")


def train(folder: Path) -> nn.Module:
    """Trains the network; prints its error on the validation images, in percent, after each epoch."""
    torch.manual_seed(0)
    parts = (torchvision.datasets.ImageFolder(str(folder / part), ToTensor()) for part in ("train", "val"))
    loader, validation = (
        DataLoader(part, size, shuffle=size < 100) for part, size in zip(parts, (64, 256), strict=True)
    )
    model = torchvision.models.resnet18(num_classes=len(NAMES))
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * len(loader))
    for _ in range(EPOCHS):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            wrong = sum(int((model(x).argmax(1) != y).sum()) for x, y in validation)
        print(f"{100 * wrong / len(PARTS['val']):.2f} %", flush=True)
    return model


if __name__ == "__main__":
    out = Path(sys.argv[1])
    write_images(out / "clothes")
    torch.save(train(out / "clothes").state_dict(), out / "resnet18.pth")
