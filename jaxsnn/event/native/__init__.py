"""The native backend of the event engine: kernels in C++ that JAX calls.

They are built at the first use by whatever C++ compiler there is. Where there is none, or for
neurons that they do not cover, the engine runs by XLA as before.
"""
