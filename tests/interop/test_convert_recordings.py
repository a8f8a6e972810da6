"""The zoo's recordings against the importers of snnTorch, Norse and SpikingJelly: all that can
convert must.
"""

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.slow]  # make interop measures the same

ZERO = (
    *(
        "norse_v_lifbox",
        "norse_v_lifbox_dt1",
        "norse_v_lifbox_vleak",
        "norse_v_lifcell",
        "spikingjelly_v_conv",
        "spikingjelly_v_if",
    ),
    *(
        "spikingjelly_v_lif",
        "spikingjelly_v_lif_vreset",
        "snntorch_v_conv_zero",
        "snntorch_v_leaky_zero",
    ),
    *(
        "snntorch_v_leaky_zero_nodelay",
        "snntorch_v_rleaky_zero_nodelay",
        "snntorch_v_syn_zero_nodelay",
    ),
)
SUBTRACT = (
    *(
        "snntorch_v_conv_sub",
        "snntorch_v_leaky_sub",
        "snntorch_v_rsyn_sub",
        "snntorch_v_syn_sub",
        "spyx_v_conv_hwc",
    ),
    *(
        "spyx_v_cuba",
        "spyx_v_if",
        "spyx_v_lif",
        "spyx_v_rlif",
        "sinabs_v_iaf",
        "sinabs_v_lif",
        "sinabs_v_lif_nonorm",
    ),
    "rockpool_v_lifneuron",
)
TO = [*((name, to) for name in ZERO for to in ("norse", "snntorch", "spikingjelly"))]
TO += [(name, to) for name in SUBTRACT for to in ("norse", "snntorch", "spikingjelly")]
# Its neurons are recurrent, and CUBALIFNode can subtract only in the step of the spike.
TO.remove(("snntorch_v_rsyn_sub", "spikingjelly"))


@pytest.mark.parametrize(("name", "target"), TO)
def test_converted_files_fire_the_recorded_spikes(name, target, recorded, converts):
    graph, x, y = recorded(name)
    converts(graph, target, x.astype("float32"), y)
