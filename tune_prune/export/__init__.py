"""What a pruned network costs, and the files that other programs read.

Imports `pruning` and the packages before it. It knows nothing of a search.
"""
