"""Training: the loop, losses, adversarial texts, soups, and their stages."""
