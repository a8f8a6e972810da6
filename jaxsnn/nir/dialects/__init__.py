"""Deciding the dialect of a graph, and what one step of its neurons computes."""
