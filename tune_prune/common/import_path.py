"""Where Python looks for modules: in the working directory last, and with `--no-code` not at all.

Python itself puts a script's folder first, or with `python -m` the working directory. A file `torch.py` that lies there
would then be run in place of the library. The programs call `demote_first_entry` before they import anything else.
"""

import os
import sys

NO_CODE = "TUNE_PRUNE_NO_CODE"
"""Environment variable: where it is set, no address is imported, in this process and in those that it starts."""


def refuse_code(refuse: bool) -> bool:
    """Turns off the import of addresses where `refuse` is true, as `--no-code` asks; returns `refuse`."""
    if refuse:
        os.environ[NO_CODE] = "1"
    return refuse


def is_code_refused() -> bool:
    """Whether no address may be imported."""
    return bool(os.environ.get(NO_CODE))


def demote_first_entry() -> None:
    """Puts the entry that Python itself has put first on `sys.path` last; with `--no-code` takes it out."""
    refuse_code("--no-code" in sys.argv)
    if not sys.flags.safe_path:  # else Python has put none there
        first = sys.path.pop(0)
        if not is_code_refused():
            sys.path.append(first)


def add_working_directory() -> None:
    """Makes modules in the working directory importable, after all others; with `--no-code` takes it off the path."""
    refuse_code("--no-code" in sys.argv)
    here = os.getcwd()
    if is_code_refused():
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != os.path.realpath(here)]
    elif here not in sys.path:
        sys.path.append(here)
