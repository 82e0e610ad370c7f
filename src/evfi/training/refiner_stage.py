"""The stage that trains the refiner."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from evfi.errors import ConfigError
from evfi.models.bundle import load_bundle, load_refiner
from evfi.models.refiner import Refined
from evfi.training.batches import Batch, init_of
from evfi.training.config import RefinerTraining
from evfi.training.networks import new_refiner
from evfi.training.refiner_batches import RefinerMaker, refiner_inputs
from evfi.training.refiner_loss import LOSS_MULTIPLE, refiner_loss
from evfi.training.stage import Stage
from evfi.training.texture_loss import TEXTURE_MULTIPLE, TextureError
from evfi.training.textures import TextureLibrary
from evfi.training.validation import check_recordings, psnr, validate_recordings


class RefinerStage(Stage):
    """Key frames are warped to where a frozen model's prediction and the events say that things are."""

    def __init__(self, config: RefinerTraining, library: TextureLibrary) -> None:
        maker = RefinerMaker(config, library)
        super().__init__(config, maker)
        self.settings = config
        self.windows = maker
        check_recordings(config.validation, config.validation_skip)
        folder = Path(str(config.init)) / "refiner"
        known = (
            load_refiner(folder, dtype=torch.float32, device=library.device)
            if folder.is_dir()
            else new_refiner(config.network)
        )
        self.refiner = known.to(library.device, memory_format=torch.channels_last).requires_grad_(True).train()
        _check_sides(config, maker, self.refiner.multiple)
        self._texture = TextureError(maker.bundle.vae) if config.texture_weight else None
        self._held_out = maker.held_out()  # now, before batches are made by another thread

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        refined = self.refiner(refiner_inputs(batch))
        loss = refiner_loss(refined, batch["keys"], batch["truth"], self.settings)
        if self._texture is not None:
            loss = loss + self.settings.texture_weight * self._texture(refined.frames, batch["truth"])
        return loss

    def fixed_batch(self) -> Batch:
        """Whole windows that are not trained on."""
        return self._held_out

    @torch.no_grad()
    def sample_pictures(self) -> Tensor:
        """Rows of: start, end, prediction, what the refiner makes of it and without it, true frame."""
        batch = self.fixed_batch()
        columns = [batch["keys"][:, 0], batch["keys"][:, 1], batch["prediction"]]
        columns += [self._refined(batch, present).frames for present in (1.0, 0.0)]
        return torch.stack([*columns, batch["truth"]], 1)[:8].clamp(-1, 1)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of prediction and refined frames on fixed windows, and of frames left out of recordings, if any are named."""
        batch = self.fixed_batch()
        pictures = {"of_prediction": batch["prediction"]}
        pictures |= {
            "refined": self._refined(batch, 1.0).frames,
            "without_prediction": self._refined(batch, 0.0).frames,
        }
        figures = {
            f"psnr_{name}": float(psnr(frames.clamp(-1, 1), batch["truth"]).mean()) for name, frames in pictures.items()
        }
        config = self.settings
        if config.validation:
            bundle = replace(self.windows.bundle, refiner=self.refiner)
            figures |= validate_recordings(bundle, config.validation, config.validation_skip, config.validation_windows)
        return figures

    def _refined(self, batch: Batch, present: float) -> Refined:
        given = {**batch, "has_prediction": torch.full_like(batch["has_prediction"], present)}
        refined: Refined = self.refiner(refiner_inputs(given))
        return refined

    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write the model with its refiner; its other parts as they are in the model that the run began with."""
        replace(load_bundle(init_of(self.settings)), refiner=self.refiner).save(folder, dtype=dtype)


def _check_sides(config: RefinerTraining, maker: RefinerMaker, multiple: int) -> None:
    """Refuse sides that do not suit the networks and the loss.

    Raises:
        ConfigError: one does not.
    """
    cropped = math.lcm(multiple, LOSS_MULTIPLE, TEXTURE_MULTIPLE if config.texture_weight else 1)
    whole = math.lcm(cropped, maker.window_multiple)
    for name, factor in (("size_px", cropped), ("window_px", whole)):
        side = getattr(config, name)
        if side % factor:
            raise ConfigError(
                f"{name} must be a multiple of {factor}, the factor by which networks and loss shrink pictures, got {side}; "
                f"try {max(factor, side // factor * factor)}"
            )
