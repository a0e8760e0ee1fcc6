"""What a pruned network costs, and the files in which other programs read it: compaction, costs, formats.

Imports `pruning` and the packages before it. It knows nothing of a search.
"""
