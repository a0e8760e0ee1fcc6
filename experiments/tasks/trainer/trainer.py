"""A small vision transformer of Hugging Face, trained by Hugging Face's Trainer, on scikit-learn's digits.

The dense model is trained by the same function: `tune-prune train --fit trainer:fit`, as in space.toml.
"""

from collections.abc import Callable, Iterable
from tempfile import gettempdir

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

Batch = dict[str, Tensor]


def model() -> ViTForImageClassification:
    """Three blocks of width 48, on patches of 2 x 2."""
    size = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, num_labels=10, hidden_size=48, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=96, hidden_dropout_prob=0.1,
    )  # fmt: skip
    return ViTForImageClassification(size)


def data() -> tuple[Batch, ...]:
    """997 / 400 / 400 images of 8 x 8, as Hugging Face's models take them."""
    images, classes = (torch.tensor(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0)).split([997, 400, 400])
    pixels = images.float().view(-1, 1, 8, 8) / 8 - 1
    return tuple({"pixel_values": pixels[part], "labels": classes[part]} for part in order)


class AfterStep(TrainerCallback):
    """Calls a function after every step of the optimizer."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step

    def on_step_end(self, *ignored: object, **also: object) -> None:
        """Called by the Trainer."""
        self.after_step()


class BatchTrainer(Trainer):
    """A Trainer on batches that are made already."""

    def get_train_dataloader(self) -> Iterable[Batch]:
        """The batches as they are."""
        return self.train_dataset


def fit(model: nn.Module, batches: Iterable[Batch], steps: int, lr: float, after_step: Callable[[], None]) -> None:
    """Trains by the Trainer: AdamW, whose rate rises for 5 % of the steps, then falls to 0."""
    arguments = TrainingArguments(
        gettempdir(), max_steps=steps, learning_rate=lr, warmup_steps=steps // 20, lr_scheduler_type="cosine",
        use_cpu=True, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    BatchTrainer(model, arguments, train_dataset=batches, callbacks=[AfterStep(after_step)]).train()
