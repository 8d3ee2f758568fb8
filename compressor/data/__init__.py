"""Texts and labels: reading them, checking them, and making batches of tokens."""
