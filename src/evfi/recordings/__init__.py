"""Recordings: frames, events and how they lie on each other."""
