"""Which tests are long: `make test` leaves them to `make test-long`, so that it takes less than ten
minutes on two cores. Both run in continuous integration.

    python -m tests.durations RESULTS.xml ...

writes `tests/long_tests.txt` from JUnit XML files of runs of all fast tests without cached programs
(`pytest --junitxml`). Tests against real frameworks are never long: they are the proof.
"""

import collections
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

LIST = Path(__file__).parent / "long_tests.txt"
#: Seconds of all cases of a test function from which on it is long.
SHORTEST = 0.7
#: Tests of real frameworks, and of faults in them.
NEVER = ("tests/interop/", "tests/conformance/test_known_faults.py")


def long_tests() -> frozenset[str]:
    """Return the names of the long test functions, as "FILE::FUNCTION"."""
    return frozenset(LIST.read_text().split())


def function_of(identifier: str) -> str:
    """Return the name of the function of a test, without its parameters."""
    return identifier.partition("[")[0]


def main(results: list[str]) -> None:
    """Write the list."""
    seconds = collections.Counter()
    for result in results:
        for case in ET.parse(result).iter("testcase"):
            file = case.attrib["classname"].replace(".", "/") + ".py"
            name = function_of(f"{file}::{case.attrib['name']}")
            seconds[name] += float(case.attrib["time"])
    names = [
        name
        for name, duration in seconds.items()
        if duration >= SHORTEST and not name.startswith(NEVER)
    ]
    LIST.write_text("".join(f"{name}\n" for name in sorted(names)))


if __name__ == "__main__":
    main(sys.argv[1:])
