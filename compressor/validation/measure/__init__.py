"""Measurements of dense model, pruned model and artifact."""
