"""Times an epoch of Yin-Yang beside jaxsnn 0.3.0's own example, in turns, in one run.

    python benchmarks/peer_epoch.py        # needs its environment: make bench makes it

5-100-3, one spike per neuron, 4,992 training points in batches of 64. The peer is its event-based
example with EventProp as it comes: its training steps alone, until their result is there. Ours is
`fit` with all that it does: checks, history, the 1,000 points of validation.
"""

import json
import statistics
import subprocess
from pathlib import Path

from train_yinyang import network

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.train import fit, yinyang_splits

PEER = Path(__file__).parent.parent / ".venv-peers" / "jaxsnn" / "bin" / "python"
TURNS, POINTS, HIDDEN = 3, 4992, 100
#: Epochs in a turn, of which the first compiles.
THEIRS, OURS = 4, 20
EXAMPLE = """
import json, sys, time
import jax
from jaxsnn.event import training
from jaxsnn.examples.event import yinyang_layered_event_prop as example
seconds = []
def timed(function, *arguments):
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    seconds.append(time.perf_counter() - start)
    return result, seconds[-1]
training.time_it = timed
accuracy = example.main(example.get_parser().parse_args(sys.argv[1:]))
print(json.dumps({"seconds": seconds, "accuracy": float(accuracy)}))
"""


def theirs() -> list[float]:
    """Seconds of each epoch of the peer."""
    options = [
        "--epochs",
        str(THEIRS),
        "--hidden-size",
        str(HIDDEN),
        "--trainset-size",
        str(POINTS),
    ]
    done = subprocess.run(
        [PEER, "-P", "-c", EXAMPLE, *options], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])["seconds"][1:]


def ours() -> list[float]:
    """Seconds of each of our epochs."""
    engine = EventDriven(max_spikes=1, first_spike_only=True, min_slope=0.04)
    splits = yinyang_splits(0, sizes=(POINTS, 1000, 1000))
    return fit(
        network(HIDDEN, 0, once=True), splits, engine=engine, epochs=OURS, learning_rate=0.03
    ).seconds[1:]


def main() -> None:
    found: dict[str, list[float]] = {"jaxsnn 0.3.0, EventProp": [], "this library": []}
    for _ in range(TURNS):
        found["jaxsnn 0.3.0, EventProp"] += theirs()
        found["this library"] += ours()
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    for name, seconds in found.items():
        print(f"{name}: {middle[name]:.3f} s an epoch (best {min(seconds):.3f} s)")
    peer, own = found.values()
    print(
        f"ratio of medians {statistics.median(peer) / statistics.median(own):.1f}, of minima {min(peer) / min(own):.1f}"
    )


if __name__ == "__main__":
    main()
