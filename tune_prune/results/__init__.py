"""What a search measured: records of trials, the Pareto front, constraints, tables, pictures and the report.

Imports `export` and the packages before it, neither Ray nor Optuna; `hpo` and the packages after it may import it.
"""
