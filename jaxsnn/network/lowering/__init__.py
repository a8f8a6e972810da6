"""From a NIR graph to a network, and from a trained network back into the graph."""
