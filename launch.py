"""The search: `python launch.py --budget 100` is `tune-prune search --budget 100`."""

from tune_prune.cli.main import main

if __name__ == "__main__":
    main("search")
