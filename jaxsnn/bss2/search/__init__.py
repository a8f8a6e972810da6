"""From a network to a mapping: quantisation, partition, placement, routing."""
