"""The time-stepped engine: every NIR node, every dialect, surrogate gradients.

`engine` is the way in. `limits` says without JAX what it would refuse.
"""
