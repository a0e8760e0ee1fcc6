"""A LightningModule trained by Lightning's own Trainer, on scikit-learn's digits: what keeps the masks is a callback.

The dense model is trained by the same function: `tune-prune train --fit lightning_module:fit`, as in space.toml.
"""

import logging
import warnings
from collections.abc import Callable, Iterable

import lightning
import torch
import torch.nn.functional as F
from digits import Pair, network
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning's own call of torch


class Network(lightning.LightningModule):
    """[n, 1, 8, 8] -> [n, 10]; `fit` sets its highest learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.lr = network(), 0.01

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        return self.body(images)

    def training_step(self, batch: Pair, index: int) -> Tensor:
        """The loss that Lightning minimises."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW, whose rate falls to 0 over the steps of the Trainer."""
        optimizer = torch.optim.AdamW(self.parameters(), self.lr)
        schedule = CosineAnnealingLR(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class AfterStep(lightning.Callback):
    """Calls a function after every step of the optimizer."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step

    def on_train_batch_end(self, *ignored: object) -> None:
        """Called by Lightning."""
        self.after_step()


def fit(model: Network, batches: Iterable[Pair], steps: int, lr: float, after_step: Callable[[], None]) -> None:
    """Trains by Lightning for so many steps."""
    model.lr = lr
    lightning.Trainer(max_steps=steps, callbacks=[AfterStep(after_step)], **QUIET).fit(model, batches)
