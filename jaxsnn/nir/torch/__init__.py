"""PyTorch modules as graphs and back: from_torch, to_torch, load_into."""
