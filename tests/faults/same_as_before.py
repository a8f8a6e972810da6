"""Changes that change nothing: by file, the line and the change, each with the reason."""

_ABSENT = "any negative number says that there is none, and nobody asks for entries beyond the last"
_PARTS = "synapses are added up in parts, for memory, and the sum is the same"
_START = "where an iteration starts: in its bracket it comes to the same root"
_UNUSED = "it keeps from dividing by 0 where what comes of it is not used"
_VANISHES = "what stays of the current vanishes beside 1 in float32, as before"
SAME: dict[str, dict[tuple[str, str], str]] = {
    "jaxsnn/bss2/check/check_mapping.py": {
        ("column = np.full(net.size + 1, -1)", "1 -> 2"): _ABSENT,
        ("row = np.full(net.size, -1)", "1 -> 2"): _ABSENT,
        (
            "own, other = (excited, inhibited) if wanted > 0 else (inhibited, excited)",
            "wanted > 0 -> wanted >= 0",
        ): "0 has returned before",
    },
    "jaxsnn/bss2/check/propagate.py": {
        (
            "address = event % (1 << chip.event_bits)",
            "1 -> 2",
        ): "neither filters nor drivers look at the bit above",
        ("_CHUNK = 1 << 22", "1 -> 2"): _PARTS,
        ("_CHUNK = 1 << 22", "22 -> 23"): _PARTS,
        (
            "chosen = start + np.flatnonzero((count[start:stop] > 0) & (target[start:stop] >= 0))",
            "count[start:stop] > 0 -> count[start:stop] >= 0",
        ): "a synapse that no event reaches adds nothing",
        (
            "table = np.array(entries, np.int64).reshape(-1, 4)",
            "1 -> 2",
        ): "NumPy takes any negative size for the one that is unknown",
        ('stop = max(start + 1, int(np.searchsorted(ends, most, side="right")))', "1 -> 2"): _PARTS,
    },
    "jaxsnn/event/dynamics/crossing.py": {
        ("d = 1 / tau_syn - 1 / tau_mem", "1 -> 2"): _START,
        ("safe = jnp.where(z == 0, 1.0, z)", "1.0 -> 2.0"): _UNUSED,
        ("safe = jnp.where(near, -1.0, z)", "1.0 -> 2.0"): _UNUSED,
        ("safe = jnp.where(near, -1.0, z)", "-1.0 -> +1.0"): _UNUSED,
        ("safe_j = jnp.where(j == 0, 1.0, j)", "1.0 -> 2.0"): _UNUSED,
        ("far = -ratio * tau_mem / jnp.where(apart, d_tau, 1.0)", "1.0 -> 2.0"): _UNUSED,
        ("for n in range(11, -1, -1):", "11 -> 12"): "one term more of a series that is exact",
        (
            "bowl = 2 * jnp.maximum(peak - threshold, 0.0) / jnp.where(curvature > 0, curvature, 1.0)",
            "2 -> 3",
        ): _START,
        (
            "by_ratio = apart & ((z < -0.25) | (z > _LARGE))",
            "z > _LARGE -> z >= _LARGE",
        ): "both forms hold where they meet",
    },
    "jaxsnn/event/dynamics/integrate_and_fire.py": {
        ("rise = jnp.where(crossing_now & (j > 0), j, 1.0)", "1.0 -> 2.0"): _UNUSED,
        ("wait = (lanes.threshold - v) / jnp.where(j > 0, j, 1.0)", "1.0 -> 2.0"): _UNUSED,
    },
    "jaxsnn/event/dynamics/lif.py": {
        ("drive = jnp.where(crossing_now, j - v, 1.0)", "1.0 -> 2.0"): _UNUSED,
        (
            "left = jnp.where(crossing_now, j - lanes.threshold, 1.0) / drive  # 1 - share",
            "1.0 -> 2.0",
        ): _UNUSED,
    },
    "jaxsnn/event/dynamics/two_variables.py": {
        (
            "wait = tau_mem * (threshold - v) / jnp.where(reaches, drive - v, 1.0)",
            "1.0 -> 2.0",
        ): _UNUSED,
    },
    "jaxsnn/event/dynamics/decaying_modes.py": {
        (
            "low = high = turns[0]",
            "0 -> 1",
        ): "the times are used where something was reached, which sets both",
    },
    "jaxsnn/nir/frameworks/sinabs.py": {
        ("_NO_CURRENT = 2.0**-100", "2.0 -> 3.0"): _VANISHES,
        ("_NO_CURRENT = 2.0**-100", "100 -> 101"): _VANISHES,
    },
    "jaxsnn/nir/frameworks/rockpool.py": {
        ("positive = np.where(z > 0, z, 1.0)", "1.0 -> 2.0"): "what comes of it is not returned",
        ("for _ in range(32):", "32 -> 33"): "it has converged long before",
        ("_NO_CURRENT = 2.0**-30", "2.0 -> 3.0"): _VANISHES,
        ("_NO_CURRENT = 2.0**-30", "30 -> 31"): _VANISHES,
    },
}
