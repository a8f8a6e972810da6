"""Examples that the help of each command shows; `tests/commands/test_help.py` parses all of them."""

#: Command -> its examples: purpose and arguments.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "info": (
        ("nodes, edges and conventions of a file", "model.nir"),
        ("read a file of snnTorch with its time step", "model.nir --dialect snntorch --dt 1ms"),
    ),
    "train": (
        ("train on Yin-Yang", "model.nir --data yinyang -o trained.nir"),
        ("train on your own events", "model.nir --data events.npz --epochs 20 -o trained.nir"),
        ("everything from a configuration", "--config run.toml -o trained.nir"),
    ),
    "tune": (("keep the accuracy with fewer spikes", "trained.nir --data yinyang -o tuned.nir"),),
    "run": (
        ("simulate event by event", "model.nir --input events.npz --t-end 0.1s -o spikes.npz"),
        ("simulate in time steps", "model.nir --input steps.npz --engine grid -o spikes.npz"),
        (
            "count synaptic operations",
            "model.nir --input events.npz --t-end 0.1s --dt 1ms --neurobench -o spikes.npz",
        ),
    ),
    "check": (
        ("does the event engine support all nodes?", "model.nir --for event"),
        ("does the network fit on BrainScaleS-2?", "model.nir --for bss2"),
    ),
    "matrix": (
        ("engines, chip and importers for each node", "model.nir"),
        ("only these two", "model.nir --for event --for norse"),
    ),
    "conformance": (
        ("test the installed release of Norse", "norse --report norse.html"),
        ("test an adapter of your own", "my_adapter:ADAPTER --junit results.xml"),
    ),
    "draw": (("draw the graph", "model.nir -o graph.svg"),),
    "plot": (
        ("spike raster of a simulation", "model.nir --kind raster --input steps.npz -o raster.png"),
        ("learning curve of a training run", "trained.history.json -o curve.pdf"),
    ),
    "convert": (
        ("a file that Norse simulates with the same spikes", "model.nir --to norse norse.nir"),
        ("show the changes, step by step", "model.nir --to spikingjelly out.nir -v"),
    ),
    "map": (
        ("place and route", "model.nir -o mapping.json --report map.html"),
        ("check an existing mapping", "model.nir --verify mapping.json"),
    ),
    "deploy": (("write the scripts for the chip", "model.nir mapping.json -o scripts"),),
    "chip": (
        ("write samples as input of the scripts", "inputs model.nir --data yinyang -o events.npz"),
    ),
    "emulate": (
        (
            "run a mapping on an emulated chip",
            "model.nir mapping.json --input events.npz -o out.npz",
        ),
    ),
    "compare": (
        ("compare recorded spikes with a simulation", "model.nir recorded.npz --input events.npz"),
    ),
    "verify": (
        ("compare with a recording of the framework", "model.nir --recording recording.npz"),
    ),
    "fidelity": (
        (
            "what time steps change on your data",
            "model.nir --input steps.npz --report fidelity.html",
        ),
    ),
    "demo": (("all steps on an included file", "-o demo-output --report report.html"),),
    "doctor": (("versions, devices and optional packages", ""),),
    "completion": (("load the completion in bash", "bash"),),
}
