"""From a graph to a mapping, in the order of the steps.

1. Quantise, `quantize`: the netlist. `unroll` makes sparse weights of linear nodes, `chip_dynamics`
   scales time, `whole_weights` rounds weights, `cadc_levels` voltages.
2. Place and route, `portfolio`. `feasibility`: what counting forbids. `partition`: which neurons
   are on the chip in which run. `task`: one run.
3. Place, `place` (`placement`, `tiling`): circuits for each neuron.
4. Route, `route` (`effort`): addresses for events, rows for synapses. Of the router "mixed" are
   `bins` and `assign_bins`, of "greedy" `greedy_router` and `greedy_drivers`; `make_run` makes the
   record. On a small chip `exhaustive` (`hemisphere_settings`) tries all.

`registry` adds placers and routers from outside.
"""
