"""All hostile files of formats other than networks in HDF5, which `tests.faults.hostile_corpus` has.

    python -m tests.faults.hostile_files.corpus FOLDER

writes them all.
"""

import sys
from pathlib import Path

from tests.faults.hostile_files import (
    arrays,
    checkpoints,
    events,
    images,
    recordings,
    sounds,
    special,
    texts,
)

CORPUS = {
    name: hostile
    for module in (arrays, images, sounds, texts, checkpoints, recordings, special, events)
    for name, hostile in module.CORPUS.items()
}


def main(folder):
    """Write all files, each into a folder of its own."""
    for number, hostile in enumerate(CORPUS.values()):
        place = Path(folder) / f"{number:03}"
        place.mkdir(parents=True)
        hostile.write(place / hostile.path)
        sys.stdout.write(f"{place}: {hostile.name}\n")


if __name__ == "__main__":
    main(sys.argv[1])
