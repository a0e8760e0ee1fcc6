"""Strategies of Hypothesis that tests share."""

from hypothesis import strategies as st

from tune_prune.hpo.groups import LossCurve

loss_curves = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(
        LossCurve,
        weights=st.integers(10, 10**6),
        scale=st.floats(1e-6, 1e-1),
        power=st.floats(0.5, 6),
        low=st.floats(0.001, 0.2),
        high=st.floats(0.2, 1.0),
    ),
    min_size=1,
)
"""Loss curves of one to four layers, by label."""
