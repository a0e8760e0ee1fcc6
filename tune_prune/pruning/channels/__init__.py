"""Which channels of which layers hang together, and how they are removed together; and which blocks can be left out.

`tracer` runs a model once on a few samples with labels beside its tensors, by the `rules` of each operation; `blocks`
tries which modules a model works without; `finding` makes groups of what was seen; `held` finds the numbers in a
model's code that change with channels; `removal` scores and masks them.
"""
