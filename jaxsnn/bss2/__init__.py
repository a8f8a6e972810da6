"""BrainScaleS-2: the chip as data, and the mapping of networks to it.

`chip`: its parts. `examine`: a graph as the chip sees it, and what it cannot run.
`search`: from a graph to a mapping. `netlist`, `mapping`, `mapping_files`, `json_entries`: the
records, and their file. `check`: the independent check of a mapping. `usage`, `floorplan`: how much
of the chip a mapping takes, as numbers and as a picture. `emulate`: an emulated chip. `deploy`:
scripts for the chip's own software.
"""
