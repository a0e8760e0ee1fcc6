"""Which channels of which layers hang together, and how they are removed together.

`tracer` runs a model once on a few samples with labels beside its tensors, by the `rules` of each operation; `groups`
makes groups of channels of what was seen; `removal` scores and masks them.
"""
