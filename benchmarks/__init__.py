"""Measurements for the tables: one module a table, run with `python -m benchmarks.NAME`."""
