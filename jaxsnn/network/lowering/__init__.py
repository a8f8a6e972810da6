"""Lowering of a NIR graph to a network, and transfer of a trained network's parameters back into
the graph.
"""
