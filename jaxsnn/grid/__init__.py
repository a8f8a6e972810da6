"""The time-stepped engine: every NIR node, every dialect, surrogate gradients.

Start with `time_stepped`. `capabilities` lists without JAX what it does not support.
"""
