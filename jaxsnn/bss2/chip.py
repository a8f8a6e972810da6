"""BrainScaleS-2 (HICANN-X) as plain data: its parts, their numbering and wiring, and the defects of
one chip.

Numbers and numbering are those of the public hardware description (halco and haldls, coordinates
hicann-dls/vx). A hemisphere is 0 (top) or 1 (bottom); a circuit is (row, column), where its row is
its hemisphere. Every size is a field, so that a chip small enough to be searched exhaustively is
only another instance.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jaxsnn.errors import JaxsnnError
from jaxsnn.units import parse_time
from jaxsnn.wording import Text

Circuit = tuple[int, int]
#: Connection of the crossbar: (input, output).
Node = tuple[int, int]

HEMISPHERES = 2
ROWS_PER_DRIVER = 2

#: Effects of a synapse row on the events that its driver accepts.
DISABLED, EXCITATORY, INHIBITORY, BOTH = 0, 1, 2, 3
ROW_MODES = ("disabled", "excitatory", "inhibitory", "both")


class ChipError(JaxsnnError):
    """Error of a chip with contradictory sizes, or of dead parts that do not exist on it."""

    default_code = "bad-chip"


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Sizes of a chip, from which all other numbers are derived.

    An event's address is, from its lowest bit: the label that synapses compare, the row select that
    drivers compare, and filter bits that only the crossbar looks at (0 for on-chip neurons); above
    them the number of the link from the host.

    Attributes:
        name: Name of the chip in a mapping.
        columns: Number of columns of a hemisphere; each has one circuit, and one synapse in each
            row of the hemisphere.
        halves: Number of blocks of adjacent columns; all circuits of a neuron are in one block.
        buses: Number of event buses of a hemisphere, of event outputs of a half, and of links from
            and to the host.
        drivers_per_bus: Number of synapse drivers per bus, with two synapse rows each.
        label_bits: Bits of an address that synapses compare.
        row_select_bits: Bits of an address that drivers compare, under their mask.
        filter_bits: Bits of an address above these, for the crossbar.
        weight_max: Largest weight of a synapse.
        clock_period: Period of the event clock, seconds; a link moves one event per period.
        timer_bits: Bits of the counter of clock periods.
        recorded_events: Maximum number of events that one run records (32 MiB, 8 bytes each).
    """

    name: str
    columns: int
    halves: int
    buses: int
    drivers_per_bus: int
    label_bits: int
    row_select_bits: int
    filter_bits: int = 3
    weight_max: int = 63
    clock_period: float = parse_time("8ns")
    timer_bits: int = 32
    recorded_events: int = 4_194_304

    @property
    def circuits(self) -> int:
        """Number of neuron circuits."""
        return HEMISPHERES * self.columns

    @property
    def drivers(self) -> int:
        """Number of synapse drivers of a hemisphere."""
        return self.buses * self.drivers_per_bus

    @property
    def rows(self) -> int:
        """Number of synapse rows of a hemisphere."""
        return ROWS_PER_DRIVER * self.drivers

    @property
    def rows_per_bus(self) -> int:
        """Number of synapse rows on one bus."""
        return ROWS_PER_DRIVER * self.drivers_per_bus

    @property
    def labels(self) -> int:
        """Number of labels that synapses distinguish."""
        return 1 << self.label_bits

    @property
    def outputs(self) -> int:
        """Number of event outputs of the neurons."""
        return self.halves * self.buses

    @property
    def half_columns(self) -> int:
        """Number of columns of one half."""
        return self.columns // self.halves

    @property
    def output_columns(self) -> int:
        """Number of columns that share an event output."""
        return self.columns // self.outputs

    @property
    def output_bits(self) -> int:
        """Number of bits of an on-chip event's row select that hold its event output."""
        return _bits(self.outputs)

    @property
    def address_bits(self) -> int:
        """Number of bits of an on-chip event's address that are free for each circuit (8 on
        HICANN-X).
        """
        return self.label_bits + self.row_select_bits - self.output_bits

    @property
    def event_bits(self) -> int:
        """Number of bits of an address inside the chip (14 on HICANN-X); the link's number is above
        them.
        """
        return self.label_bits + self.row_select_bits + self.filter_bits

    @property
    def background_generators(self) -> int:
        """Number of Poisson generators, one for each bus."""
        return HEMISPHERES * self.buses

    @property
    def crossbar_inputs(self) -> int:
        """Number of crossbar inputs: event outputs of the neurons first, then the links from the
        host, then the generators.
        """
        return self.outputs + self.buses + self.background_generators

    @property
    def crossbar_outputs(self) -> int:
        """Number of crossbar outputs: buses of the top hemisphere first, then of the bottom one,
        then the links to the host.
        """
        return (HEMISPHERES + 1) * self.buses

    # -- synapse drivers and rows
    def driver_bus(self, driver: int) -> int:
        """Return the bus (of its hemisphere) that a driver listens to."""
        return driver % self.buses

    def driver_index(self, driver: int) -> int:
        """Return a driver's number on its bus, which it compares with an event's row select."""
        return driver // self.buses

    def driver_at(self, bus: int, index: int) -> int:
        """Return the driver with a number on a bus."""
        return index * self.buses + bus

    # -- neurons
    def output_of(self, column: int) -> int:
        """Return the event output of a circuit, which is also its crossbar input."""
        return column // self.output_columns

    def bus_of(self, column: int) -> int:
        """Return the only bus, in either hemisphere, that a circuit's events can reach."""
        return self.output_of(column) % self.buses

    def half_of(self, column: int) -> int:
        """Return the half of a column."""
        return column // self.half_columns

    def neuron_event(self, column: int, address: int) -> int:
        """Return the address of an event that the circuit in a column sends with its local
        `address`.
        """
        return self.output_of(column) << self.address_bits | address

    # -- events
    def label_of(self, event: int) -> int:
        """Return the part of an event's address that synapses compare."""
        return event & (self.labels - 1)

    def row_select_of(self, event: int) -> int:
        """Return the part of an event's address that drivers compare."""
        return event >> self.label_bits & ((1 << self.row_select_bits) - 1)

    def link_of(self, event: int) -> int:
        """Return the link on which an event from the host arrives."""
        return event >> self.event_bits

    # -- crossbar
    def link_input(self, link: int) -> int:
        """Return the crossbar input of a link from the host."""
        return self.outputs + link

    def background_input(self, generator: int) -> int:
        """Return the crossbar input of a generator."""
        return self.outputs + self.buses + generator

    def bus_output(self, hemisphere: int, bus: int) -> int:
        """Return the crossbar output of a bus."""
        return hemisphere * self.buses + bus

    def link_output(self, link: int) -> int:
        """Return the crossbar output of a link to the host."""
        return HEMISPHERES * self.buses + link


def driver_of(row: int) -> int:
    """Return the driver of a synapse row.

    >>> driver_of(5), rows_of(2)
    (2, (4, 5))
    """
    return row // ROWS_PER_DRIVER


def rows_of(driver: int) -> tuple[int, int]:
    """Return the two synapse rows of a driver: its "bottom" row, then its "top" row."""
    return ROWS_PER_DRIVER * driver, ROWS_PER_DRIVER * driver + 1


@functools.cache
def crossbar_nodes(chip: Chip) -> tuple[Node, ...]:
    """Return the existing crossbar nodes, by input, then output: a node passes an event where
    address & mask == target.

    >>> len(crossbar_nodes(HICANN_X))
    76
    """
    bus_outputs = range(HEMISPHERES * chip.buses)
    nodes = []
    for output in range(chip.outputs):
        bus = output % chip.buses
        nodes += [(output, chip.bus_output(hemisphere, bus)) for hemisphere in range(HEMISPHERES)]
        nodes.append((output, chip.link_output(bus)))
    for link in range(chip.buses):
        nodes += [(chip.link_input(link), output) for output in bus_outputs]
        nodes.append((chip.link_input(link), chip.link_output(link)))
    for generator in range(chip.background_generators):
        nodes.append((chip.background_input(generator), generator))
        nodes.append((chip.background_input(generator), chip.link_output(generator % chip.buses)))
    return tuple(nodes)


@dataclass(frozen=True, kw_only=True)
class Dead:
    """Parts of one chip that must not be used.

    Attributes:
        circuits: (row, column) of neuron circuits.
        drivers: (hemisphere, driver); both their rows are unusable.
        rows: (hemisphere, row) of synapse rows.
    """

    circuits: tuple[Circuit, ...] = ()
    drivers: tuple[tuple[int, int], ...] = ()
    rows: tuple[tuple[int, int], ...] = ()

    def unusable_rows(self) -> frozenset[tuple[int, int]]:
        """Return (hemisphere, row) of all rows that are dead or whose driver is."""
        of_drivers = (
            (hemisphere, row) for hemisphere, driver in self.drivers for row in rows_of(driver)
        )
        return frozenset((*self.rows, *of_drivers))


NOTHING_DEAD = Dead()


def check_dead(chip: Chip, dead: Dead) -> None:
    """Raise ChipError if a dead part does not exist on the chip."""
    for kind, parts, size in (
        ("circuit", dead.circuits, chip.columns),
        ("driver", dead.drivers, chip.drivers),
        ("row", dead.rows, chip.rows),
    ):
        for hemisphere, number in parts:
            if not (0 <= hemisphere < HEMISPHERES and 0 <= number < size):
                raise ChipError(
                    Text(
                        "dead {part} ({hemisphere}, {number}) does not exist on chip '{chip}'",
                        part=kind,
                        hemisphere=hemisphere,
                        number=number,
                        chip=chip.name,
                    ),
                    fix=f"pass hemisphere 0 or 1, and a {kind} from 0 to {size - 1}",
                )


@dataclass(frozen=True, kw_only=True)
class Range:
    """Calibration range of one parameter of a neuron.

    Attributes:
        unit: "s", or LSB of a converter.
        low, high: Limits outside which the calibration warns.
        default: Default target of the calibration.
        least, most: Limits outside which the calibration fails; None if it only warns.
        common: Whether there is one value for the entire chip.
    """

    unit: str
    low: float
    high: float
    default: float
    least: float | None = None
    most: float | None = None
    common: bool = False


def _time_range(
    low: str, high: str, default: str, least: str | None = None, most: str | None = None
) -> Range:
    return Range(
        unit="s",
        low=parse_time(low),
        high=parse_time(high),
        default=parse_time(default),
        least=None if least is None else parse_time(least),
        most=None if most is None else parse_time(most),
    )


#: Calibration targets of spiking neurons in calix (neuron_calib_target.h); times are those of the
#: chip, a thousandth of biological times.
PARAMETERS: Mapping[str, Range] = MappingProxyType(
    {
        "v_leak": Range(unit="CADC LSB", low=50, high=160, default=80),
        "v_reset": Range(unit="CADC LSB", low=50, high=160, default=70),
        "v_threshold": Range(unit="CADC LSB", low=50, high=220, default=125),
        "tau_mem": _time_range("0.5us", "60us", "10us", "0.1us", "2000us"),
        "tau_syn": _time_range("0.3us", "30us", "10us", "0.1us", "100us"),
        "i_synin_gm": Range(unit="CapMem LSB", low=30, high=800, default=500, common=True),
        "synapse_dac_bias": Range(unit="CapMem LSB", low=30, high=1022, default=600, common=True),
        "membrane_capacitance": Range(unit="LSB", low=0, high=63, default=63),
        "refractory_time": _time_range("240ns", "32us", "2us", least="40ns", most="32us"),
    }
)

HICANN_X = Chip(
    name="HICANN-X",
    columns=256,
    halves=2,
    buses=4,
    drivers_per_bus=32,
    label_bits=6,
    row_select_bits=5,
)
#: A chip that is small enough for an exhaustive search; labels, rows and circuits of a bus are as
#: scarce as on the large chip.
SMALL = Chip(
    name="small", columns=2, halves=1, buses=1, drivers_per_bus=2, label_bits=1, row_select_bits=1
)

CHIPS: Mapping[str, Chip] = MappingProxyType({chip.name: chip for chip in (HICANN_X, SMALL)})


def self_check(chip: Chip) -> None:
    """Raise ChipError where sizes of a chip contradict each other.

    >>> self_check(HICANN_X)
    >>> HICANN_X.circuits, HICANN_X.rows, HICANN_X.outputs
    (512, 256, 8)
    >>> HICANN_X.address_bits, HICANN_X.event_bits
    (8, 14)
    """
    for name in (
        "columns",
        "halves",
        "buses",
        "drivers_per_bus",
        "label_bits",
        "row_select_bits",
        "weight_max",
    ):
        if getattr(chip, name) < 1:
            raise ChipError(
                Text(
                    "chip '{chip}': {parameter} is {value}",
                    chip=chip.name,
                    parameter=name,
                    value=getattr(chip, name),
                ),
                fix="use at least 1",
            )
    for name in ("halves", "buses", "drivers_per_bus"):
        if getattr(chip, name) != 1 << _bits(getattr(chip, name)):
            raise ChipError(
                Text(
                    "chip '{chip}': {parameter} is {value}",
                    chip=chip.name,
                    parameter=name,
                    value=getattr(chip, name),
                ),
                fix="use a power of two",
            )
    if chip.columns % chip.outputs:
        raise ChipError(
            Text(
                "chip '{chip}' has {columns} columns for {outputs} event outputs",
                chip=chip.name,
                columns=chip.columns,
                outputs=chip.outputs,
            ),
            fix="use a multiple of the number of outputs",
        )
    if chip.row_select_bits < max(_bits(chip.drivers_per_bus), chip.output_bits):
        raise ChipError(
            Text(
                "chip '{chip}' has {row_select_bits} row select bits for {drivers_per_bus} "
                "drivers of a bus and {outputs} event outputs",
                chip=chip.name,
                row_select_bits=chip.row_select_bits,
                drivers_per_bus=chip.drivers_per_bus,
                outputs=chip.outputs,
            ),
            fix="use more row select bits",
        )
    circuits = HEMISPHERES * chip.output_columns
    if circuits > 1 << chip.address_bits:
        raise ChipError(
            Text(
                "chip '{chip}' has {circuits} circuits on each event output, but {addresses} "
                "addresses",
                chip=chip.name,
                circuits=circuits,
                addresses=1 << chip.address_bits,
            ),
            fix="use more label bits",
        )
    wires = (
        chip.outputs * 3
        + chip.buses * (HEMISPHERES * chip.buses + 1)
        + chip.background_generators * 2
    )
    nodes = crossbar_nodes(chip)
    if len(set(nodes)) != wires or any(
        i >= chip.crossbar_inputs or o >= chip.crossbar_outputs for i, o in nodes
    ):
        raise ChipError(
            Text(
                "chip '{chip}' has {actual} crossbar nodes, not {expected}",
                chip=chip.name,
                actual=len(set(nodes)),
                expected=wires,
            ),
            fix="correct the function crossbar_nodes",
        )


def _bits(count: int) -> int:
    """Return the number of bits of an index below `count`."""
    return (count - 1).bit_length()
