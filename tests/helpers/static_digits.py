"""Digits that snnTorch was shown as constant currents, and what it fired."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data"
FILE = DATA / "static_digits.nir"
STEPS = 25


def static_digits():
    """Images (samples, 64) from 0 to 1, labels, and snnTorch's spikes (time, samples, 10)."""
    with np.load(DATA / "static_digits.npz") as file:
        images, labels = file["x"].astype(np.float32) / 16, file["labels"].astype(int)
        spikes = np.unpackbits(file["y"])[: STEPS * len(images) * 10]
    return images, labels, spikes.reshape(STEPS, len(images), 10)
