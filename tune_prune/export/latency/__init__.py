"""Latency: measured of whole networks in turn, and predicted from a table of the times of operations."""
