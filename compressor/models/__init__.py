"""Classifiers and artifacts: loading, checking, running and changing them."""
