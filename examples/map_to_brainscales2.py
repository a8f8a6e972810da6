# %% [markdown]
# # Onto BrainScaleS-2
#
# A network becomes whole numbers, then places on the chip and routes through it. No chip and no
# vendor software is needed; code that knows nothing of placer and router proves the result.

# %%
from importlib.resources import files

import jaxsnn
from jaxsnn import plot

source = files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir"
graph = jaxsnn.read(str(source), dialect="snntorch", reset="zero")

# %% [markdown]
# Weights have 6 bit and a sign. What that loses is said for each population.

# %%
quantized = jaxsnn.quantize(graph)
for name, node in quantized.nodes.items():
    print(f"{name}: rms error {node.relative_error:.1%} of the weights' rms")
for note in quantized.notes:
    print("note:", note.as_text() if hasattr(note, "as_text") else note)

# %%
found = jaxsnn.place_and_route(quantized.netlist)
assert found.mapping is not None, found.why
print(found.stop_reason, "in", len(found.mapping.runs), "run")
print("violations:", jaxsnn.check_mapping(found.mapping, quantized.netlist))
plot.floorplan(found.mapping).save("map_to_brainscales2.svg", force=True)
