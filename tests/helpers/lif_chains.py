"""Small networks as frameworks write them, for conversions from one to the next and back."""

from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal


def two_layers(framework, reset, *, inputs, sizes, seed):
    """Two layers of LIF neurons with one time constant as a framework writes them.

    `sizes`: of both layers.
    """
    dt, decay = 1e-4, 0.9
    options = {
        "snntorch": {"reset": reset, "reset_delay": reset == "subtract"},
        "norse": {"dt": dt, "dt_export": 1.0},
        "spikingjelly": {"dt": dt, "reset": reset},
        "spyx": {"time_unit": "s", "dt": dt},
    }[framework]
    r = {"snntorch": 10.0, "norse": 1.0, "spikingjelly": 10.0, "spyx": decay}[framework]
    gain = 10.0 if framework == "norse" else 1.0
    layers = []
    for size in sizes:
        layers += [build.linear(size, weight=normal(0.3 * gain, 0.5 * gain))]
        layers += [build.lif(tau=dt / (1 - decay), r=r)]
    return build.sequential(build.input(inputs), *layers, seed=seed, dialect=framework, **options)
