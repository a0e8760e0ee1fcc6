"""`python -m tune_prune` is `tune-prune`."""

from tune_prune.cli.main import main

if __name__ == "__main__":
    main()
