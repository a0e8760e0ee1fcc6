"""How a network is trained: the optimizer, one step, the loop, and the resources that they run on.

Imports `common` and `tasks`; `pruning` and the packages after it may import it. Masks are plain pairs of tensors here.
"""
