"""Exact gradients of spike times, in reverse and in forward mode."""
