"""An emulated chip: a mapping simulated with the known deviations of BrainScaleS-2."""

from jaxsnn.bss2.emulate.emulated_chip import CALIBRATED, SPREADS, EmulatedChip, Spread
from jaxsnn.bss2.emulate.emulation import Emulation, Emulator, emulate, emulator_notes
from jaxsnn.bss2.emulate.loop import ChipInTheLoop

__all__ = [
    "CALIBRATED",
    "SPREADS",
    "ChipInTheLoop",
    "EmulatedChip",
    "Emulation",
    "Emulator",
    "Spread",
    "emulate",
    "emulator_notes",
]
