"""The demo: a short synthetic recording with known in-between frames, interpolated and compared."""
