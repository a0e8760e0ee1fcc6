"""Runs trials with Ray: the session or cluster, what workers share, the trainable, the searcher and the tuner.

The only package that imports Ray. Imports `hpo` and the packages before it; `workflows` and `cli` may import it.
"""
