"""Modules that run without the rest of this project; `deploy/docker` links to them."""
