"""The training loop: what a run will do, its epochs, its checkpoints."""
