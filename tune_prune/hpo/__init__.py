"""What a search tries next: the space, the Optuna study, the scheduler of trials, early stopping, refinement.

The only package that imports Optuna. It imports `results` and the packages before it, and not Ray.
"""
