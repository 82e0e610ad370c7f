"""On a GPU: a recorded training step gives what the step itself gives, and a run that replays it goes on where it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evfi.models.bundle import load_bundle
from evfi.models.refiner import Refiner
from evfi.training.batches import Batch
from evfi.training.config import RefinerNetwork, RefinerTraining
from evfi.training.graphs import GraphedLoss
from evfi.training.loop import train
from evfi.training.refiner_batches import refiner_inputs
from evfi.training.refiner_loss import refiner_loss
from tiny_models import tiny_bundle, tiny_refiner

pytestmark = pytest.mark.gpu

CONFIG = RefinerTraining(Path("t"), Path("o"))


@pytest.fixture(autouse=True)
def in_float32() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(before)


def some_batch(seed: int, number: int, side: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return (torch.rand(number, *shape, side, side, generator=generator) * 2 - 1).cuda()

    return {
        "truth": drawn(3),
        "prediction": drawn(3),
        "keys": drawn(2, 3),
        "key_stacks": drawn(2, 6),
        "stacks": drawn(12),
        "sums": drawn(4),
        "times": torch.rand(number, generator=generator).cuda(),
        "has_prediction": (torch.arange(number) % 2).float().cuda(),
    }


def loss_of(refiner: Refiner, batch: Batch) -> Tensor:
    return refiner_loss(refiner(refiner_inputs(batch)), batch["keys"], batch["truth"], CONFIG)


def test_a_recorded_step_is_the_step_itself_for_two_shapes_in_turn() -> None:
    plain, recorded = (
        tiny_refiner().requires_grad_(True).train().to("cuda", memory_format=torch.channels_last) for _ in range(2)
    )
    pauses: list[int] = []

    @contextlib.contextmanager
    def paused() -> Iterator[None]:
        pauses.append(1)
        yield

    parameters = list(recorded.parameters())
    graphs = GraphedLoss(lambda batch: loss_of(recorded, batch), parameters, paused)
    places = [parameter.grad.data_ptr() for parameter in parameters if parameter.grad is not None]
    optimizers = [torch.optim.SGD(network.parameters(), lr=1e-3) for network in (plain, recorded)]
    for seed, (number, side) in enumerate([(2, 32), (3, 64), (2, 32), (3, 64), (2, 32)]):
        batch = some_batch(seed, number, side)
        plain.zero_grad()
        expected = loss_of(plain, batch)
        expected.backward()
        torch.testing.assert_close(graphs(batch), expected.detach(), rtol=1e-4, atol=1e-4)
        for (name, own), other in zip(recorded.named_parameters(), plain.parameters(), strict=True):
            assert own.grad is not None, name
            assert other.grad is not None, name
            off = float((own.grad - other.grad).norm() / other.grad.norm().clamp(min=1e-6))
            assert off < 1e-2, f"{name}: gradients differ by {off:.1e} of their norm"  # kernels differ in rounding
        assert plain.fusion.choose.weight.grad.abs().max() > 1e-3
        for optimizer in optimizers:  # the next replay must see the new weights
            optimizer.step()
    assert len(pauses) == 2  # one recording per shape
    assert all(recording is not None for recording in graphs._recorded.values())
    assert [parameter.grad.data_ptr() for parameter in parameters if parameter.grad is not None] == places


def test_what_cannot_be_recorded_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))

    def asks_the_processor(batch: Batch) -> Tensor:
        return (weight * batch["x"]).sum() * float(batch["x"].sum())  # a copy to the host, which no recording may make

    graphs = GraphedLoss(asks_the_processor, [weight], contextlib.nullcontext)
    for value in (1.0, 2.0):
        x = torch.full((3,), value, device="cuda")
        assert float(graphs({"x": x})) == pytest.approx(9 * value**2)
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx([3 * value**2] * 3)
    assert "runs without a CUDA graph" in caplog.text


def new_run(folder: Path) -> RefinerTraining:
    """Pictures, a model, and the settings of a tiny run on them."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    for kind, names in (("textures", ("photo_0.png", "art_0.png")), ("cutouts", ("a.png",))):
        (folder / "pictures" / kind).mkdir(parents=True)
        for name in names:
            picture = np.dstack([noise, noise[..., :1]]) if kind == "cutouts" else noise
            Image.fromarray(picture).save(folder / "pictures" / kind / name)
    sampling = {"num_inference_steps": 2, "max_guidance_scale": 1.0, "s_churn": 0.0, "noise_aug_strength": 0.0}
    replace(tiny_bundle(), sampling=sampling).save(folder / "init")
    return RefinerTraining(
        folder / "pictures",
        folder / "run",
        init=folder / "init",
        steps=4,
        batch_size=4,
        groups=2,
        size_px=32,
        window_px=64,
        window_batch=2,
        pool_batches=2,
        pool_start=1,
        renew_every=1,
        num_frames=(3, 5),
        network=RefinerNetwork(widths=(8,) * 5, fusion_widths=(8, 8, 8), matching_levels=2, matching_radius=1),
        checkpoint_every=2,
        log_every=1,
        device="cuda",
    )


def test_a_run_of_four_steps_finishes_and_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = new_run(tmp_path)
    losses: list[float] = []
    stopped = train(replace(config, steps=2), on_step=lambda step, steps, loss: losses.append(loss))
    assert stopped.finished
    summary = train(config, on_step=lambda step, steps, loss: losses.append(loss))
    assert (summary.finished, summary.steps, len(losses)) == (True, 4, 4)
    assert all(np.isfinite(losses))
    assert np.isfinite(list(summary.figures.values())).all()
    assert "runs without a CUDA graph" not in caplog.text
    bundle = load_bundle(summary.model)
    assert bundle.refiner is not None
    assert bundle.unet.dtype == load_bundle(tmp_path / "init").unet.dtype  # half precision is for making batches alone
    assert all(bool(value.isfinite().all()) for value in bundle.refiner.state_dict().values())
