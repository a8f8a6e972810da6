# %% [markdown]
# # Map a network to BrainScaleS-2
#
# Weights become integers, neurons are placed on the chip, and spikes are routed through it. This
# needs neither a chip nor the vendor's software. An independent check, which shares no code with
# placer and router, compares the result with the network.

# %%
from importlib.resources import files

import jaxsnn
from jaxsnn import plot

source = files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir"
graph = jaxsnn.read(str(source), dialect="snntorch", reset="zero")

# %% [markdown]
# Weights have 6 bits and a sign. `quantize` reports the rounding error of each population.

# %%
quantized = jaxsnn.quantize(graph)
for name, node in quantized.nodes.items():
    print(f"{name}: rms error {node.relative_error:.1%} of the weights' rms")
for note in quantized.notes:
    print("note:", note.as_text())

# %%
search = jaxsnn.place_and_route(quantized.netlist)
assert search.mapping is not None, search.why
print(search.stop_reason, "in", len(search.mapping.runs), "run")
print("violations:", jaxsnn.check_mapping(search.mapping, quantized.netlist))
plot.floorplan(search.mapping).save("map_to_brainscales2.svg", force=True)
