"""Find out how far a neural network can be pruned, and how."""

__version__ = "0.1.0"
