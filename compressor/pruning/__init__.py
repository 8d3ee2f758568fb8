"""Pruning: the interface, patterns, the calibration walk, and the algorithms."""
