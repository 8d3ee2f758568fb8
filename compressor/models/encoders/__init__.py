"""Layouts of model families: where their layers are, what they are called, and what their inputs are."""
