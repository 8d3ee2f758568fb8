"""Adversarial attacks on PyTorch models and on exported artifacts, on local resources."""
