"""Arrivals at populations, and the spikes that they send."""
