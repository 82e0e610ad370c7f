"""What every training stage does."""

from __future__ import annotations

import abc
from pathlib import Path

import torch
from torch import Tensor, nn

from evfi.training.batches import Batch, BatchMaker, StepKey
from evfi.training.config import TrainConfig


class Stage(nn.Module, abc.ABC):
    """A module whose `forward(batch)` is the loss, so that it can be wrapped for several devices.

    It knows how to judge its networks and how to write them in diffusers' layout.
    """

    def __init__(self, config: TrainConfig, maker: BatchMaker) -> None:
        super().__init__()
        self.config = config
        self.maker = maker

    def fixed_batch(self) -> Batch:
        """A batch that is not trained on, always the same."""
        return self.maker.make(StepKey(self.config.seed + 1, 0))

    @abc.abstractmethod
    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write the stage's networks, and those it builds on, as `folder/vae` and so on."""

    @abc.abstractmethod
    def sample_pictures(self) -> Tensor:
        """Rows of pictures [N, M, 3, H, W] in [-1, 1] that show what the networks do, from fixed draws."""

    @abc.abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures on data that is not trained on."""
