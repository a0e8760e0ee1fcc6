"""The colours of every picture: those of Okabe and Ito, which every kind of colour vision can distinguish."""

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#1A1A1A", "#8A8A8A"
GRID = "#E6E6E6"

LINES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK)
"""The colours of lines side by side, in this order; grey is left for what they are compared with."""

PAPER, VEIL = "#FFFFFF", "rgba(255,255,255,.8)"
"""What lies behind a picture, and behind a label that crosses lines."""

DARK = {
    BLUE: "#57AEE6",
    ORANGE: "#F58B4C",
    GREEN: "#3CC9A0",
    PINK: "#E3A6C7",
    YELLOW: "#F2BC45",
    SKY: "#9AD4F7",
    BLACK: "#E6E6E6",
    GREY: "#989898",
    GRID: "#383D42",
    PAPER: "#16191C",
    VEIL: "rgba(22,25,28,.8)",
}
"""Each colour on a dark page."""
