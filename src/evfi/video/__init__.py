"""Frames and video: reading, writing, geometry."""
