"""Which weights go and how a network is pruned: masks, criteria, their statistics, schedules, and the rounds.

Imports `common`, `tasks` and `training`. It runs without Ray and without Optuna.
"""
