"""The dialects by name, and the values that their options may take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.model.dialect import Conventions
from jaxsnn.options import FILE_OPTIONS

#: Allowed values of each option.
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {option.name: option.values for option in FILE_OPTIONS if option.values}
)
#: Options of all dialects that may differ between nodes; options of a single dialect always may.
PER_NODE = tuple(option.name for option in FILE_OPTIONS if option.repeated)


class _Dialects(Mapping[str, Conventions]):
    """Default conventions of each framework by name."""

    def __getitem__(self, name: str) -> Conventions:
        return frameworks()[name].dialects[0]

    def __iter__(self) -> Iterator[str]:
        return iter(frameworks())

    def __len__(self) -> int:
        return len(frameworks())


#: Conventions of each dialect by name: a view of the registry of frameworks.
DIALECTS: Mapping[str, Conventions] = _Dialects()
