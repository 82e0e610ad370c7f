"""Measuring: parity with reference numbers, metrics, protocols."""
