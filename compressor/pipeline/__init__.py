"""Whole runs: stages, their keys, the run folder, dry runs and the quickstart."""
