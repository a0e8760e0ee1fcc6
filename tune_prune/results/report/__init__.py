"""The HTML report of a run: its tables, its charts, and the page around them."""
