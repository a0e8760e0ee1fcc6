"""The task of a search: models, data sets and their splits, and how a model is evaluated on them.

Imports `common`; every package but `common` may import it.
"""
