"""The charts of a report as plotly figures, and the script that draws them on the page."""
