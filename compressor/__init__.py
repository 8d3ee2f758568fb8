"""Prune BERT classifiers, attack them, export them and prove what the exported artifact does."""

__version__ = "0.1.0"
