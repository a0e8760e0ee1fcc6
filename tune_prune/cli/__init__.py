"""The command line: options, messages and exit codes.

Imports `workflows` and the packages before it; nothing but `__main__` and `launch.py` imports it.
"""
