"""Errors, registries, users' own code by address, atomic files and seeds: plain Python, without torch.

Every other package may import it. It imports no other package.
"""
