"""The colours of every picture: those of Okabe and Ito, which every kind of colour vision can distinguish."""

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#1A1A1A", "#8A8A8A"
GRID = "#E6E6E6"

LINES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK)
"""The colours of lines side by side, in this order; grey is left for what they are compared with."""
