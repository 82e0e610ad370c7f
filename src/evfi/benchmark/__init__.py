"""Benchmarks of the engines: speed, memory use, and difference from the plain computation."""
