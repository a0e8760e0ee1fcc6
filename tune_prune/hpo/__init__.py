"""Chooses what a search tries: the space, the Optuna study, the scheduler, early stopping, refinement, warm starts.

The only package that imports Optuna. Imports `results` and the packages before it, and not Ray; `distributed` and the
packages after it may import it.
"""
