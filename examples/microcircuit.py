# %% [markdown]
# # Simulate a cortical microcircuit
#
# The network of Potjans and Diesmann (Cerebral Cortex 24:785, 2014): four layers of cortex under a square
# millimetre of its surface, each with an excitatory and an inhibitory population, and a delay for each
# synapse. We simulate a scaled network with a fifth of the 77,169 neurons and of the inputs of each neuron;
# larger weights and a constant current make up for the missing inputs (van Albada et al., PLoS Computational
# Biology 11:e1004490, 2015).

# %%
import matplotlib.pyplot as plt
import numpy as np

import jaxsnn
from jaxsnn.nir import build

SCALE = 0.2
T_END = 0.6  # seconds

# %% [markdown]
# Table 5 of the paper: sizes, probabilities that two neurons are connected (rows: postsynaptic), and
# external inputs of each neuron. The last line has the firing rates of the full network in spikes
# per second, from which the mean of the missing inputs follows.

# %%
POPULATIONS = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
SIZES = np.array([20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948])
PROBABILITIES = np.array(
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0000, 0.0076, 0.0000],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0000, 0.0042, 0.0000],
        [0.0077, 0.0059, 0.0497, 0.1350, 0.0067, 0.0003, 0.0453, 0.0000],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0000, 0.1057, 0.0000],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0000],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.0600, 0.3158, 0.0086, 0.0000],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.0010, 0.0034, 0.0005, 0.0277, 0.0080, 0.0658, 0.1443],
    ]
)
EXTERNAL = np.array([1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100])
FULL_RATES = np.array([0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829])

# %% [markdown]
# The unit of voltages and currents is mV: currents are multiplied by the resistance of the membrane. A
# spike of weight w raises the synaptic current by w. Potentials count from the resting potential of -65 mV.

# %%
TAU_MEM, TAU_SYN = 10e-3, 0.5e-3  # seconds
CAPACITANCE = 250.0  # pF
THRESHOLD, RESET = 15.0, 0.0  # mV
REFRACTORY = 2e-3  # seconds
WEIGHT = 87.81 * TAU_MEM * 1e3 / CAPACITANCE  # mV; 87.81 pA in the paper
EXTERNAL_RATE = 8.0  # spikes per second
DELAYS = {"E": 1.5e-3, "I": 0.75e-3}  # means, seconds; the standard deviation is half the mean
SHORTEST_DELAY = 0.1e-3  # seconds


def mean_weight(source, target):
    """Return the mean weight between two populations in mV."""
    if POPULATIONS[source].endswith("I"):
        return -4 * WEIGHT
    return 2 * WEIGHT if (POPULATIONS[source], POPULATIONS[target]) == ("L4E", "L23E") else WEIGHT


def synapses(rng, count, source, target, sizes):
    """Draw synapses between two populations: neurons, weights in mV, and delays in seconds."""
    mean = mean_weight(source, target)
    weight = rng.normal(mean, 0.1 * abs(mean), count) / np.sqrt(SCALE)
    weight[np.sign(weight) != np.sign(mean)] = 0.0
    mean_delay = DELAYS[POPULATIONS[source][-1]]
    delay = rng.normal(mean_delay, 0.5 * mean_delay, count)
    while (short := delay < SHORTEST_DELAY).any():
        delay[short] = rng.normal(mean_delay, 0.5 * mean_delay, int(short.sum()))
    return build.Edges(
        pre=rng.integers(0, sizes[source], count),
        post=rng.integers(0, sizes[target], count),
        weight=weight.astype(np.float32),
        delay=delay,
    )


# %% [markdown]
# Every population is a node, and so is every bundle of synapses between two populations. Chains of nodes
# connect them. Each neuron has a channel of the input of its own.


# %%
def microcircuit(seed):
    """Return the graph, and the rate of each channel of its input in spikes per second."""
    rng = np.random.default_rng(seed)
    sizes = np.round(SIZES * SCALE).astype(int)
    first = np.concatenate([[0], np.cumsum(sizes)])
    pairs = np.outer(SIZES, SIZES).astype(float)
    in_degrees = np.log1p(-PROBABILITIES) / np.log1p(-1 / pairs) / SIZES[:, None]
    nodes, chains = {"poisson": build.input(int(first[-1]))}, []
    for target, name in enumerate(POPULATIONS):
        # mean current of all inputs of the full network, of which the weights replace sqrt(SCALE)
        current = WEIGHT * EXTERNAL[target] * EXTERNAL_RATE
        for source in range(len(POPULATIONS)):
            current += mean_weight(source, target) * in_degrees[target, source] * FULL_RATES[source]
            count = round(in_degrees[target, source] * SCALE * sizes[target])
            if count:
                bundle = f"{POPULATIONS[source]} to {name}"
                edges = synapses(rng, count, source, target, sizes)
                nodes[bundle] = build.linear(int(sizes[target]), weight=edges)
                chains.append((POPULATIONS[source], bundle, name))
        nodes[name] = build.cubalif(
            int(sizes[target]),
            tau_mem=TAU_MEM,
            tau_syn=TAU_SYN,
            v_threshold=THRESHOLD,
            v_reset=RESET,
            v_leak=(1 - np.sqrt(SCALE)) * TAU_SYN * current,
        )
        neurons = np.arange(sizes[target])
        weight = np.full(len(neurons), WEIGHT / np.sqrt(SCALE), np.float32)
        from_outside = build.Edges(pre=first[target] + neurons, post=neurons, weight=weight)
        nodes[f"poisson to {name}"] = build.linear(int(sizes[target]), weight=from_outside)
        nodes[f"{name} spikes"] = build.output()
        chains.append(("poisson", f"poisson to {name}", name, f"{name} spikes"))
    rates = np.repeat(np.round(EXTERNAL * SCALE) * EXTERNAL_RATE, sizes)
    return build.network(nodes, chains), rates


graph, rates = microcircuit(seed=0)
network = jaxsnn.lower(graph)

# %% [markdown]
# The input has 50 million events per second. `max_spikes` limits the spikes of a neuron, `max_events` those
# of the network; if more occurred, the run would say so.

# %%
engine = jaxsnn.EventDriven(
    backend="native",
    refractory=REFRACTORY,
    max_spikes=int(20 + 60 * T_END),
    max_events=int(2000 + 10 * len(rates) * T_END),
)
events = jaxsnn.poisson_events(rates, T_END, seed=1)
solution = jaxsnn.simulate(network, events, T_END, engine=engine)
print(solution)

# %% [markdown]
# The rates after the first 100 ms.

# %%
for name in POPULATIONS:
    times = np.asarray(solution.spikes[name].time)
    count = np.sum((times >= 0.1) & (times < T_END))
    print(f"{name:4} {count / times.shape[1] / (T_END - 0.1):5.2f} spikes per second")

# %% [markdown]
# A tenth of the neurons of each population:

# %%
figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
bottom, middles = 0, []
for name in reversed(POPULATIONS):
    times = np.asarray(solution.spikes[name].time)[0, ::10]
    neuron, spike = np.nonzero(np.isfinite(times))
    colour = "tab:blue" if name.endswith("E") else "tab:red"
    axes.scatter(times[neuron, spike], bottom + neuron, s=1, linewidths=0, color=colour)
    middles.append(bottom + len(times) / 2)
    bottom += len(times)
axes.set_yticks(middles, reversed(POPULATIONS))
axes.set(xlabel="time in seconds", xlim=(0, T_END), ylim=(0, bottom))
figure.savefig("microcircuit.png", dpi=120)
