"""The time-stepped engine: every NIR node, every dialect, surrogate gradients.

`time_stepped` is the way in. `grid_limits` says without JAX what it would refuse.
"""
