"""Errors, registries, entry points, atomic files and seeds: plain Python.

Every other package may import it; it imports none of them, and not torch.
"""
