"""One module for each thing that a user does: search, train, prune, test sensitivity, confirm, refit, replay, report.

Imports every package but `cli`. It neither parses arguments nor ends the process.
"""
