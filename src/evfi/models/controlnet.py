"""The event ControlNet: a copy of the UNet's encoder that reads event stacks and steers the frozen UNet.

Event stacks pass a small convolutional embedding, once per window, and are added to the input convolution's output. Every
skip and the mid features leave through 1x1 convolutions that start at zero. (Adding Conditional Control to Text-to-Image
Diffusion Models, ICCV 2023; Repurposing Pre-trained Video Diffusion Models for Event-based Video Interpolation, CVPR 2025.)

Parameter names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_3d_blocks import UNetMidBlockSpatioTemporal, get_down_block
from torch import Tensor, nn

from evfi.models.unet import EventUNet, Residuals, encode


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class EventEmbedding(nn.Module):
    """Event stacks [N, K, H, W] to features [N, C0, H / factor, W / factor]; factor 2 for each width after the first."""

    def __init__(self, num_features: int, num_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(num_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = _zero(nn.Conv2d(widths[-1], num_features, 3, padding=1))

    def forward(self, stacks: Tensor) -> Tensor:
        """Embed stacks."""
        hidden = F.silu(self.conv_in(stacks))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        features: Tensor = self.conv_out(hidden)
        return features


class EventControlNet(ModelMixin, ConfigMixin):
    """The event ControlNet; its config is diffusers' UNet config plus the two `conditioning_*` entries."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        conditioning_channels: int = 6,
        conditioning_embedding_out_channels: tuple[int, ...] = (32, 64, 128, 256),
    ) -> None:
        super().__init__()
        channels = block_out_channels
        time_channels = channels[0] * 4
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.time_proj = Timesteps(channels[0], True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(channels[0], time_channels)
        self.add_time_proj = Timesteps(addition_time_embed_dim, True, downscale_freq_shift=0)
        self.add_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, time_channels)
        self.controlnet_cond_embedding = EventEmbedding(
            channels[0], conditioning_channels, conditioning_embedding_out_channels
        )
        self.down_blocks = nn.ModuleList()
        self.controlnet_down_blocks = nn.ModuleList([_zero_conv(channels[0])])
        for index, block_type in enumerate(down_block_types):
            last = index == len(down_block_types) - 1
            self.down_blocks.append(
                get_down_block(
                    block_type,
                    num_layers=layers_per_block,
                    transformer_layers_per_block=transformer_layers_per_block,
                    in_channels=channels[max(index - 1, 0)],
                    out_channels=channels[index],
                    temb_channels=time_channels,
                    add_downsample=not last,
                    resnet_eps=1e-5,
                    cross_attention_dim=cross_attention_dim,
                    num_attention_heads=num_attention_heads[index],
                    resnet_act_fn="silu",
                )
            )
            number = layers_per_block + (0 if last else 1)
            self.controlnet_down_blocks.extend(_zero_conv(channels[index]) for _ in range(number))
        self.mid_block = UNetMidBlockSpatioTemporal(
            channels[-1],
            temb_channels=time_channels,
            transformer_layers_per_block=transformer_layers_per_block,
            cross_attention_dim=cross_attention_dim,
            num_attention_heads=num_attention_heads[-1],
        )
        self.controlnet_mid_block = _zero_conv(channels[-1])

    @classmethod
    def from_unet(
        cls, unet: EventUNet, *, conditioning_channels: int, conditioning_embedding_out_channels: tuple[int, ...]
    ) -> EventControlNet:
        """A ControlNet that starts as a copy of `unet`'s encoder, adding nothing yet.

        Args:
            unet: the network to copy from.
            conditioning_channels: K, the channels of an event stack.
            conditioning_embedding_out_channels: widths of the event embedding; one more than log2 of the VAE's factor.
        """
        shared = {key: value for key, value in unet.config.items() if key in cls._own_config_names()}
        controlnet: EventControlNet = cls(
            **shared,
            conditioning_channels=conditioning_channels,
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
        )
        copied = ("conv_in.", "time_embedding.", "add_embedding.", "down_blocks.", "mid_block.")
        state = {name: value for name, value in unet.state_dict().items() if name.startswith(copied)}
        controlnet.load_state_dict(state, strict=False)
        return controlnet

    @classmethod
    def _own_config_names(cls) -> set[str]:
        return set(cls._get_init_keys(cls)) - {"self", "conditioning_channels", "conditioning_embedding_out_channels"}

    def embed_events(self, stacks: Tensor) -> Tensor:
        """Embed the event stacks of windows; constant over all sampling steps.

        Args:
            stacks: [B, F, K, H, W].

        Returns:
            [B, F, C0, H / factor, W / factor].
        """
        features: Tensor = self.controlnet_cond_embedding(stacks.flatten(0, 1))
        per_frame: Tensor = features.unflatten(0, stacks.shape[:2])
        return per_frame

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        event_features: Tensor,
        scale: float = 1.0,
    ) -> Residuals:
        """The residuals that steer the UNet; arguments as of `EventUNet.forward`.

        Args:
            sample: [B, F, in_channels, h, w].
            timestep: scalar or [B].
            encoder_hidden_states: [B, 1, D].
            added_time_ids: [B, 3].
            event_features: [B, F, C0, h, w], from `embed_events`.
            scale: factor on every residual.
        """
        encoded = encode(self, sample, timestep, encoder_hidden_states, added_time_ids, event_features.flatten(0, 1))
        skips = [skip for made in encoded.skips for skip in made]
        outlets = zip(self.controlnet_down_blocks, skips, strict=True)
        return Residuals(
            tuple(outlet(skip) * scale for outlet, skip in outlets), self.controlnet_mid_block(encoded.mid) * scale
        )


def _zero_conv(channels: int) -> nn.Module:
    return _zero(nn.Conv2d(channels, channels, 1))
