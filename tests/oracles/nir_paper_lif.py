"""The LIF neuron of the NIR paper (Pedersen et al., Nature Communications 15, 2024): what goes in,
and in which steps it fires.
"""

#: Length of a step in seconds, and number of steps.
STEP, STEPS = 1e-4, 1000
LIF = {"tau": 2.5e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.1, "v_reset": 0.0}
_INPUTS = """
    60 220 270 310 320 350 370 400 410 430 440 450 460 470 480 490 500 510 520 530 670 680 690 700
    710 720 730 740 750 760 770 780 840 850
"""
#: Steps with an input spike of weight 1.
INPUT_STEPS = [int(step) for step in _INPUTS.split()]
#: Steps in which the neuron fires.
SPIKE_STEPS = [460, 510, 710, 760]
