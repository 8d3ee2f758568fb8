"""Graphs for TensorRT: checks, the script that builds an engine, and its log."""
