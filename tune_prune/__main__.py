"""`python -m tune_prune` is `tune-prune`."""

from tune_prune.common.import_path import demote_first_entry

if __name__ == "__main__":
    demote_first_entry()  # before anything else is imported
    from tune_prune.cli.main import main

    main()
