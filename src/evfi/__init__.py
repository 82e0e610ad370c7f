"""Slow-motion video from key frames and events, by event-controlled video diffusion."""

__version__ = "0.1.0.dev0"
