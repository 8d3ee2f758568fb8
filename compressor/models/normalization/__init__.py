"""Text normalization that a tokenizer brings along."""
