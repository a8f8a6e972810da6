"""The time-stepped engine: every NIR node, every dialect, surrogate gradients.

`time_stepped` is the way in. `capabilities` lists without JAX what it does not support.
"""
