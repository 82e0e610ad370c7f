"""A library of small pictures that scenes are rendered from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evfi.training.textures import TextureLibrary, build_library


@pytest.fixture(scope="session")
def library() -> TextureLibrary:
    photos = [torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)]
    cutout = torch.zeros(4, 16, 16, dtype=torch.uint8)
    cutout[:, 2:14, 4:12] = 200
    return build_library(photos, photos, [cutout], 2)


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    for kind in ("textures", "cutouts"):
        (folder / kind).mkdir()
    for name in ("photo_0.png", "art_0.png"):
        Image.fromarray(noise).save(folder / "textures" / name)
    Image.fromarray(np.dstack([noise, noise[..., :1]]), "RGBA").save(folder / "cutouts" / "a.png")
    return folder
