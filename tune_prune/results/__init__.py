"""What a search measured: records, the front, constraints, tables, pictures and the report.

Imports `export` and the packages before it. Neither Optuna nor Ray is imported here.
"""
