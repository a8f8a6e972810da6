"""Changes that change nothing: by file, the line and the change, each with the reason."""

_ABSENT = "any negative number says that there is none, and nobody asks for entries beyond the last"
_PARTS = "synapses are added up in parts, for memory, and the sum is the same"
_BOTH = "both ways give the same gradient, and this says which one is faster"
_BEHIND = "costates are 0 behind the last spike"
_FIRING = "a neuron that fires stands in the block, or in the interval before it"
_LONGER = "it only goes over the whole log, or so that JAX can transpose it"
_MASKED = "it stands where what comes of it is masked"
_NOBODY = "it is added to a row that nobody reads"
_RISES = "a slope is only infinite where V jumped up, or at the start"
_START = "where an iteration starts: in its bracket it comes to the same root"
_UNUSED = "it keeps from dividing by 0 where what comes of it is not used"
_VANISHES = "what stays of the current vanishes beside 1 in float32, as before"
SAME: dict[str, dict[tuple[str, str], str]] = {
    "jaxsnn/bss2/emulate/run_program.py": {
        (
            "table = np.concatenate([part.channels, np.full((1, part.channels.shape[1]), -1)])",
            "-1 -> +1",
        ): "unused slots come at inf anyway",
    },
    "jaxsnn/nir/frameworks/neuron_writing.py": {
        (
            "return np.where(np.abs(offset) < 1e-9 * np.abs(scale), 0.0, offset)",
            "np.abs(offset) < 1e-09 * np.abs(scale) -> np.abs(offset) <= 1e-09 * np.abs(scale)",
        ): "they are equal where both are 0",
    },
    "jaxsnn/bss2/check/check_mapping.py": {
        ("column = np.full(net.size + 1, -1)", "1 -> 2"): _ABSENT,
        ("row = np.full(net.size, -1)", "1 -> 2"): _ABSENT,
        (
            "with_its_sign, against_its_sign = (excited, inhibited) if weight > 0 else (inhibited, excited)",
            "weight > 0 -> weight >= 0",
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
    "jaxsnn/event/adjoint/arrival_tiles.py": {
        (
            'weights = weight.at[sample.row].get(mode="fill", fill_value=0.0)',
            "0.0 -> 1.0",
        ): _MASKED,
        (
            "cause=by_sample(causes.cause) if spec.neuron.jumps and causes is not None else None,",
            "spec.neuron.jumps and causes is not None -> spec.neuron.jumps or causes is not None",
        ): "no arrival makes a spike of those whose V does not jump",
        (
            "if sample.cause is None and len(sample.times) > 4:",
            "len(sample.times) > 4 -> len(sample.times) >= 4",
        ): _BOTH,
        ("if sample.cause is None and len(sample.times) > 4:", "4 -> 5"): _BOTH,
        (
            "used = jnp.isfinite(arrival) & (number < len(sample.times))",
            "number < len(sample.times) -> number <= len(sample.times)",
        ): _BEHIND,
        (
            "gap = jnp.where(used, target, 0.0) - jnp.where(used, arrival, 0.0)",
            "0.0 -> 1.0",
        ): _MASKED,
    },
    "jaxsnn/event/adjoint/arrivals_back.py": {
        ("_AT_ONCE = 32  # neurons that are taken up in one step", "32 -> 33"): _BOTH,
        ("gap = jnp.where(counts, times - at, 0.0)", "0.0 -> 1.0"): _MASKED,
        (
            "begin = places_in(key, jnp.arange(count + 1, dtype=key.dtype))",
            "1 -> 2",
        ): "one number more, which nobody looks at",
        (
            "packed = lax.sort(packed, is_stable=False)",
            "False -> True",
        ): "no two of the numbers are equal",
        (
            "after = time[jnp.minimum(number + 1, len(time) - 1)]",
            "len(time) - 1 -> len(time) + 1",
        ): "JAX takes the last entry for any beyond it",
        (
            "return jnp.where(jnp.isfinite(after), after - time[number], 0.0)",
            "0.0 -> 1.0",
        ): _BEHIND,
        (
            "return carry[0] < end",
            "carry[0] < end -> carry[0] <= end",
        ): "a round more, in which nothing is taken up",
    },
    "jaxsnn/event/adjoint/costate_rules.py": {
        ("gap = jnp.where(carry.fired, carry.time - let_go, 0.0)", "0.0 -> 1.0"): _BEHIND,
        (
            "drive = jnp.where(spike.fired, spike.cotangent, 0.0) + dot(q.p, fall)",
            "0.0 -> 1.0",
        ): _MASKED,
        ("drive = jnp.where(spike.fired, spike.cotangent - later, 0.0)", "0.0 -> 1.0"): _MASKED,
    },
    "jaxsnn/event/adjoint/costates.py": {
        ("fixed_length: bool = False,", "False -> True"): _LONGER,
        (
            "return self._step(steps - 1 - count, drive, carry)",
            "1 -> 2",
        ): "in the last step a simulation ends, and nothing fires",
        ("at = jnp.clip(neuron, 0, size - 1)", "size - 1 -> size + 1"): _MASKED,
        (
            "after = pick(costate.p[0], jnp.clip(neuron, 0, size - 1))",
            "size - 1 -> size + 1",
        ): _MASKED,
        ("lam = jnp.where(mine, -(drive - later) / slope, 0.0)", "0.0 -> 1.0"): _MASKED,
        ("lam = jnp.where(mine, -total / slope, 0.0)", "0.0 -> 1.0"): _MASKED,
        (
            "jumped = mine & (log.cause < self.none)",
            "log.cause < self.none -> log.cause <= self.none",
        ): _NOBODY,
        (
            "passed = passed.at[cause, self.samples].add(jnp.where(jumped, total, 0.0))",
            "0.0 -> 1.0",
        ): _NOBODY,
        ("ramp = jnp.isinf(slope) & (log.jump > 0)", "log.jump > 0 -> log.jump >= 0"): _RISES,
        (
            "slope = jnp.maximum(jnp.where(mine, slope, 1.0), slope_floor(layer, constants)[at])",
            "1.0 -> 2.0",
        ): _MASKED,
        (
            "elsewhere = pick(dot(without_v(costate.p), added) + jnp.zeros_like(costate.p[0]), at)",
            "dot(without_v(costate.p), added) + jnp.zeros_like(costate.p[0]) -> "
            "dot(without_v(costate.p), added) - jnp.zeros_like(costate.p[0])",
        ): "it gives the sum its shape",
    },
    "jaxsnn/event/adjoint/layer_adjoint.py": {
        (
            "jumped = jnp.isinf(slopes) & (causes.jump > 0)",
            "causes.jump > 0 -> causes.jump >= 0",
        ): _RISES,
        ("time=jnp.where(fired, times, 0.0),", "0.0 -> 1.0"): _MASKED,
        (
            "return passed, backward.flow_back(carry.costate, jnp.where(carry.fired, carry.time, 0.0))",
            "0.0 -> 1.0",
        ): _BEHIND,
        (
            "carry, passed = backward.step(start, jax.tree.map(lambda array: array[0], spikes))",
            "0 -> 1",
        ): "there is one slot, and JAX takes the last for any beyond it",
        (
            "spec: LayerSpec, residuals: Residuals, cotangent: LayerSpikes, transposable: bool = False",
            "False -> True",
        ): _LONGER,
        (
            "weight = jnp.pad(residuals.weight, ((0, 1), (0, 0)))  # a last row of zeros for unused slots",
            "1 -> 2",
        ): "one row of zeros more, which no slot names",
        (
            "drive = jnp.moveaxis(jnp.where(jumped, passed.drive, 0.0), 1, 0).reshape(batch, -1)",
            "0.0 -> 1.0",
        ): "those slots are dropped",
        ("spikes = jnp.where(fired, seen.times, 0.0)", "0.0 -> 1.0"): _MASKED,
        ("gap = jnp.where(came, free - arrival[:, None], 0.0)", "0.0 -> 1.0"): _MASKED,
        ("kicked = after(jnp.where(spiked, free - spikes, 0.0), added)", "0.0 -> 1.0"): _MASKED,
    },
    "jaxsnn/event/adjoint/recorded_spikes.py": {
        ("rows = jnp.where(jnp.isfinite(columns), rows, weight.shape[0])", "0 -> 1"): _MASKED,
        ("finite = jnp.where(jnp.isfinite(times), times, 0.0)", "0.0 -> 1.0"): _MASKED,
        (
            'weights = weight.at[arrival.row].get(mode="fill", fill_value=0.0)',
            "0.0 -> 1.0",
        ): _MASKED,
    },
    "jaxsnn/event/adjoint/recurrent_adjoint.py": {
        (
            "spec: GroupSpec, residuals: _Residuals, drive: OfSteps, fixed_length: bool = False",
            "False -> True",
        ): _LONGER,
    },
    "jaxsnn/event/dynamics/bracketed_root.py": {
        ("_MOST_STEPS = 200", "200 -> 201"): "so many are always enough",
        (
            "return jnp.where(high > _WIDE * floor, jnp.sqrt(floor) * jnp.sqrt(high), "
            "0.5 * (low + high))",
            "high > _WIDE * floor -> high >= _WIDE * floor",
        ): "at that width either of the two lies in the bracket",
        (
            "before = (value <= 0) == above  # t lies before the root, or on it",
            "value <= 0 -> value < 0",
        ): "a root that is met exactly is found, on whichever side of the bracket",
    },
    "jaxsnn/event/dynamics/crossing.py": {
        (
            "near = z > -0.7",
            "z > -0.7 -> z >= -0.7",
        ): "at the number itself either formula is as exact as beside it",
        ("d = 1 / tau_syn - 1 / tau_mem", "1 -> 2"): _START,
        (
            "quotient = jnp.log(tau_mem / tau_syn) / jnp.where(nearly_equal, 1.0, d)",
            "1.0 -> 2.0",
        ): _UNUSED,
        ("safe = jnp.where(z == 0, 1.0, z)", "1.0 -> 2.0"): _UNUSED,
        ("safe = jnp.where(near, -1.0, z)", "1.0 -> 2.0"): _UNUSED,
        ("safe = jnp.where(near, -1.0, z)", "-1.0 -> +1.0"): _UNUSED,
        ("safe_j = jnp.where(j == 0, 1.0, j)", "1.0 -> 2.0"): _UNUSED,
        ("far = -ratio * tau_mem / jnp.where(apart, d_tau, 1.0)", "1.0 -> 2.0"): _UNUSED,
        ("for n in range(15, -1, -1):", "15 -> 16"): "one term more of a series that is exact",
        (
            "bowl = 2 * jnp.maximum(peak - threshold, 0.0) / jnp.where(curvature > 0, curvature, 1.0)",
            "2 -> 3",
        ): _START,
        (
            "by_ratio = apart & ((z < -0.25) | (z > _LARGE))",
            "z > _LARGE -> z >= _LARGE",
        ): "both forms hold where they meet",
    },
    "jaxsnn/event/dynamics/cubalif.py": {
        ("return -constants.tau_mem[0] * jnp.log(order)", "0 -> 1"): "all neurons have the same",
    },
    "jaxsnn/event/dynamics/integrate_and_fire.py": {
        ("rise = jnp.where(crossing_now & (j > 0), j, 1.0)", "1.0 -> 2.0"): _UNUSED,
        ("wait = (constants.threshold - v) / jnp.where(j > 0, j, 1.0)", "1.0 -> 2.0"): _UNUSED,
    },
    "jaxsnn/event/dynamics/lif.py": {
        ("drive = jnp.where(crossing_now, j - v, 1.0)", "1.0 -> 2.0"): _UNUSED,
        (
            "remainder = jnp.where(crossing_now, j - constants.threshold, 1.0) / drive  # 1 - share",
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
    "jaxsnn/nir/frameworks/evidence.py": {
        (
            "gains = np.concatenate([tie.gain for tie in dt_ties] or [np.zeros(0)])",
            "0 -> 1",
        ): "beside no time constants it comes to none",
    },
    "jaxsnn/event/forward/layer_scan.py": {
        ("number = jnp.clip(number - self.offset, 0, array.shape[0] - 1)", "0 -> 1"): _FIRING,
        (
            "number = jnp.clip(number - self.offset, 0, array.shape[0] - 1)",
            "array.shape[0] - 1 -> array.shape[0] + 1",
        ): _FIRING,
    },
    "jaxsnn/event/forward/functionals.py": {
        (
            'return empty.at[samples, row].add(response(constants)[..., 0], mode="drop")',
            "0 -> 1",
        ): "JAX takes the last entry for any beyond it, and there is one",
    },
}
