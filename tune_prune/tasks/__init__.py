"""What is to be solved: models, data sets, their splits, and the metrics of a model on them.

Imports `common`. Every package below in the list of `tests/test_architecture.py` may import it.
"""
