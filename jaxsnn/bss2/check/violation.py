"""What the checker reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One thing that is wrong with a mapping.

    Attributes:
        code: for scripts.
        where: the run, and the neuron, circuit, synapse or node.
        message: what is wrong there.
    """

    code: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"code": self.code, "where": self.where, "message": self.message}
