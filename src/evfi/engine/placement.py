"""Where a model's weights lie: on the GPU while they are needed, in the host's memory otherwise, as a plan says."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from evfi.engine.memory import NEEDS, UNUSED, MemoryPlan, Phase
from evfi.engine.network import SteeredUNet
from evfi.engine.offload import BlockStreamer, Parcel, storages_of, tensors_of
from evfi.models.bundle import ModelBundle


class Placement:
    """The weights of one model; nothing is touched until a plan first sends some away."""

    def __init__(self, bundle: ModelBundle, network: SteeredUNet, decoder: nn.Module) -> None:
        """Take the networks, which lie on the device.

        Args:
            bundle: the model.
            network: its ControlNet and UNet, as they are run.
            decoder: the autoencoder's decoder, as it is run: the model's own, or a copy beside it.
        """
        self._bundle, self._network, self._decoder = bundle, network, decoder
        self._parcels: dict[str, list[Parcel]] = {}

    @property
    def is_divided(self) -> bool:
        """Whether weights come and go."""
        return bool(self._parcels)

    def send(self, device: torch.device) -> None:
        """Make weights that lie in the host's memory the device's, without having them there all at once.

        What never leaves goes there; the rest does as plans want it.
        """
        self._parcels = {
            name: [Parcel.sent(weights, device) for weights in groups] for name, groups in self._weights().items()
        }
        for network in (*self._bundle.networks().values(), self._decoder):
            network.to(device)

    def enter(self, plan: MemoryPlan, phase: Phase) -> None:
        """Have the weights that a phase needs on the device, and others off it where the plan says so."""
        if not self._parcels:
            if plan.offload == "none":
                return
            weights = self._weights()
            self._parcels = {name: [Parcel(one) for one in groups] for name, groups in weights.items()}
            self._pack({id(weight) for groups in weights.values() for group in groups for weight in group})
        self._have(plan.residency[phase])
        if plan.offload == "blocks" and phase == "denoise":
            blocks = [block for name in NEEDS["denoise"] for block in self._parcels[name]]
            self._network.streamer = BlockStreamer(blocks, self._bundle.unet.device)

    def restore(self) -> None:
        """Bring everything back onto the device."""
        self._have(self._parcels)

    def bytes_on(self, device: torch.device) -> int:
        """What the model's weights take on a device now."""
        return sum(storage.nbytes() for storage in storages_of(self._tensors()) if storage.device == device)

    def _tensors(self) -> list[Tensor]:
        return tensors_of([*self._bundle.networks().values(), self._decoder])

    def _pack(self, leaving: set[int]) -> None:
        """Bring what never leaves together: lying between what leaves, it would hold the memory around it."""
        rest = Parcel(tensor for tensor in self._tensors() if id(tensor) not in leaving)
        self._have(())
        rest.leave()
        if self._bundle.unet.device.type == "cuda":
            torch.cuda.empty_cache()
        rest.enter()

    def _have(self, names: Iterable[str]) -> None:
        """Have what these names stand for on the device and nothing else; what leaves does so first, to make room."""
        if self._network.streamer is not None:
            self._network.streamer.clear()
            self._network.streamer = None
        wanted = frozenset(names)
        for name in sorted(self._parcels, key=lambda name: name in wanted):
            for parcel in self._parcels[name]:
                if name in wanted:
                    parcel.enter()
                else:
                    parcel.leave()

    def _weights(self) -> dict[str, list[list[Tensor]]]:
        """What comes and goes together, by the names of plans; ControlNet and UNet by their blocks.

        Single numbers stay: plans are made from copies of the networks that hold them.
        """
        bundle = self._bundle
        encoder = [part for name, part in bundle.vae.named_children() if name != "decoder"]
        control, unet = self._network.blocks_of_networks()
        unused = self._network.unused()
        if self._decoder is not bundle.vae.decoder:
            unused += tensors_of([bundle.vae.decoder])
        weights = {
            "vae_encoder": [tensors_of(encoder)],
            "vae_decoder": [tensors_of([self._decoder])],
            "controlnet": control,
            "unet": unet,
            UNUSED: [unused],
        }
        if bundle.image_encoder is not None:
            weights["image_encoder"] = [tensors_of([bundle.image_encoder])]
        return {
            name: [[weight for weight in group if weight.numel() > 1] for group in groups]
            for name, groups in weights.items()
        }
