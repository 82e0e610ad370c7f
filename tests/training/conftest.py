"""A library of small pictures that scenes are rendered from."""

from __future__ import annotations

import pytest
import torch

from evfi.training.textures import TextureLibrary, build_library


@pytest.fixture(scope="session")
def library() -> TextureLibrary:
    photos = [torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)]
    cutout = torch.zeros(4, 16, 16, dtype=torch.uint8)
    cutout[:, 2:14, 4:12] = 200
    return build_library(photos, photos, [cutout], 2)
