"""The time-stepped engine: every NIR node, every dialect, surrogate gradients.

`engine` is the way in. `cycles` and `timing` say without JAX what the engine would refuse.
"""
