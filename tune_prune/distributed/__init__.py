"""Ray: the session or cluster, what workers share, the trainable, the searcher and the tuner.

The only package that imports Ray. It imports `hpo` and the packages before it.
"""
