"""Recipes: reading, checking, overriding and starting them."""
