"""A model repository for Triton, and its client."""
