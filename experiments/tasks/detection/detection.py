"""Detection by torchvision's Faster R-CNN on a small backbone, judged by torchmetrics' mean average precision.

`python dense.py` trains the dense model and writes dense.pth. The images are made (`squares.py`).
"""

import torch
from squares import Squares
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def collate(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> Batch:
    """Images and targets as lists, as torchvision's detectors take them."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def model() -> FasterRCNN:
    """Three convolutions, and heads of 64 features."""
    layers = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((1, 16), (16, 32), (32, 32))]
    backbone = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    backbone.out_channels = 32
    return FasterRCNN(
        backbone, min_size=64, max_size=64, image_mean=[0.0], image_std=[1.0],
        rpn_anchor_generator=AnchorGenerator(((12, 18, 26),), ((1.0,),)),
        rpn_post_nms_top_n_train=50, rpn_post_nms_top_n_test=20, box_batch_size_per_image=32,
        box_head=TwoMLPHead(32 * 7 * 7, 64), box_predictor=FastRCNNPredictor(64, 2),
    )  # fmt: skip


def data() -> tuple[DataLoader[Batch], ...]:
    """300 / 60 / 60 images, as batches of 20."""
    return tuple(
        DataLoader(Squares(count, seed), 20, shuffle=seed == 0, collate_fn=collate)
        for seed, count in enumerate((300, 60, 60))
    )


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The sum of the detector's own losses, which it computes in training mode alone."""
    training = model.training
    try:
        return torch.stack(list(model.train()(*batch).values())).sum()
    finally:
        model.train(training)
