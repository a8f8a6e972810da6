"""BrainScaleS-2: what the chip can run."""
