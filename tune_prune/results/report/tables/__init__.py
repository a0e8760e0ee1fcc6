"""The tables of a report, as HTML."""
