"""The native backend of the event engine: kernels in C++ that JAX calls.

The C++ compiler of the machine builds them at the first use. Without a compiler, and for populations
that the kernels do not support, the engine runs on XLA.
"""
