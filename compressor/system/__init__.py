"""The machine: files and locks, processes and ranks, the terminal, caches, the hub."""
