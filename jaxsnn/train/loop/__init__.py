"""The training loop: its plan, its epochs, its checkpoints."""
