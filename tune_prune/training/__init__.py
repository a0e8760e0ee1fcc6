"""How a network is trained: the optimizer, one step, the loop, and the resources that it runs on.

Imports `common` and `tasks`. It knows nothing of pruning: masks are pairs of tensors to it.
"""
