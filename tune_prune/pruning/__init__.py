"""How a network is pruned: masks, criteria and their statistics, schedules, the rounds of pruning, and checkpoints.

Imports `common`, `tasks` and `training`, neither Ray nor Optuna; `export` and the packages after it may import it.
"""
