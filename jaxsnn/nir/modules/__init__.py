"""Modules of PyTorch: their graphs, what they do, and weights put back into them.

torch is imported inside functions.
"""
