"""The search for a mapping of a graph. Modules in the order of the steps: quantise, place, route.

1. Quantise, `quantize`: the netlist. `unroll` makes sparse weights of linear nodes, `chip_dynamics`
   scales time, `rounding` converts weights and voltages to integers.
2. Place and route, `portfolio`: which neurons are on the chip in which run, and which placers and
   routers are tried. `feasibility`: proofs by counting that there is no mapping. `task`: one run.
3. Place, `place`: circuits for each neuron.
4. Route, `route`: addresses for events, rows for synapses, the record of the run. `bins`: groups
   of drivers, and which source goes where.

`strategies` adds placers and routers from outside.
"""
