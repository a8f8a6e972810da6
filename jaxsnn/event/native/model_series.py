"""C++ classes that compute Taylor coefficients of the results of a program along a trajectory.

Each operation has a recurrence, by which its coefficient k follows from coefficients of its operands
up to k, and from its coefficients below k (series.h).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxsnn.event.native.model_program import (
    ARITHMETIC,
    BRANCHES,
    FUNCTIONS,
    Operand,
    ScalarProgram,
    ScalarStep,
    UnsupportedOperationError,
    expression,
    is_result,
    literal,
    name_of,
)
from jaxsnn.wording import Text

#: Functions of series.h that the classes call.
SERIES_FUNCTIONS = (
    *("kSeriesTerms", "Lanes", "chain_term", "constant_term", "log_term", "power_term"),
    *("product_term", "quotient_term", "square_term", "each_pow"),
    *(f"each_{name}" for name in FUNCTIONS),
)
#: Function with the derivative +-g -> g, the sign, and the sign in g' = +-f.
_PAIRS = {
    "sin": ("cos", "", "-"),
    "cos": ("sin", "-", ""),
    "sinh": ("cosh", "", ""),
    "cosh": ("sinh", "", ""),
}
#: Function of a with the derivative sign1 w^exponent -> sign1, w = constant sign2 a^2, exponent.
_POWERS = {
    "atan": ("", "1.0", "+", "-1.0"),
    "asin": ("", "1.0", "-", "-0.5"),
    "acos": ("-", "1.0", "-", "-0.5"),
    "asinh": ("", "1.0", "+", "-0.5"),
    "acosh": ("", "-1.0", "+", "-0.5"),
    "atanh": ("", "1.0", "-", "-1.0"),
}


@dataclass(frozen=True, kw_only=True)
class SeriesPart:
    """Part of a C++ method that computes the coefficients k of some results.

    Attributes:
        signature: signature of the method.
        results: C++ assignments, without their right sides, and the results.
        source: method of the model, for messages.
        condition: compile-time condition under which the part is computed; "": always.
    """

    signature: str
    results: Sequence[tuple[str, Operand]]
    source: str = "rate"
    condition: str = ""


def series_class(
    name: str,
    program: ScalarProgram,
    inputs: Sequence[Operand],
    parts: Sequence[SeriesPart],
    members: Sequence[str],
) -> str:
    """Return a C++ class that computes coefficients of results of a program.

    Args:
        inputs: inputs of the program that are series; the others are constants.
        parts: methods; each may use the results of those before.
        members: declarations of the arrays of inputs and results.

    Raises:
        UnsupportedOperationError: an operation on series has no recurrence.
    """
    writer = _SeriesWriter(program, inputs)
    bodies: dict[str, list[str]] = {}
    done: set[int] = set()
    for part in parts:
        numbers = program.needed(value for _, value in part.results) - done
        done |= numbers
        lines = writer.lines(numbers, part.source)
        lines += [f"{target} {writer.term(value)};" for target, value in part.results]
        if part.condition:
            lines = [f"if constexpr ({part.condition}) {{", *lines, "}"]
        bodies.setdefault(part.signature, []).extend(lines)
    fixed = {n: program.steps[n] for n in sorted(done) if not writer.varies[n]}
    fields = [*(f"t{n}" for n in fixed), *writer.reciprocals]
    declared = [f"Lanes {', '.join(f'{field} = {{}}' for field in fields)};"] if fields else []
    if writer.arrays:
        arrays = ", ".join(f"{array}[kSeriesTerms]" for array in writer.arrays)
        declared.append(f"Lanes {arrays};")
    text = [f"struct {name} {{", *(f"  {line}" for line in (*members, *declared))]
    text.append("  void set_lane(int lane, const double* c) {")
    text += [f"    const auto t{number} = {expression(step)};" for number, step in fixed.items()]
    text += [f"    this->t{number}[lane] = t{number};" for number in fixed]
    text += [f"    {member}[lane] = 1.0 / {of};" for member, of in writer.reciprocals.items()]
    text.append("  }")
    for signature, lines in bodies.items():
        text += [f"  {signature} {{", *(f"    {line}" for line in lines), "  }"]
    return "\n".join([*text, "};"])


class _SeriesWriter:
    """Writes the recurrences of the operations of a program."""

    def __init__(self, program: ScalarProgram, inputs: Iterable[Operand]) -> None:
        self.program = program
        self.varies = program.depends(inputs)
        self.arrays: list[str] = []  # members of the class
        self.reciprocals: dict[str, str] = {}  # member of the class -> constant
        self._circular: dict[str, tuple[str, str]] = {}  # series -> those of its sine and cosine

    def lines(self, numbers: Iterable[int], source: str) -> list[str]:
        """Return the computation of the coefficients k of some steps."""
        lines = []
        for number in sorted(numbers):
            step = self.program.steps[number]
            if step.name == "input" or not self.varies[number]:
                continue
            if step.name in BRANCHES and not self._is_fixed_choice(step):
                raise UnsupportedOperationError(
                    Text(
                        "'{source}' contains the operation {operation} of the state, which has no "
                        "Taylor series",
                        source=source,
                        operation=step.name,
                    )
                )
            lines.append(self._line(self._array(f"s{number}"), step))
        return lines

    def term(self, operand: Operand) -> str:
        """Return the coefficient k of an operand, which may be a constant."""
        if self._is_series(operand):
            return f"{self._series(operand)}[k]"
        return f"constant_term({name_of(operand)}, k)"

    def _is_fixed_choice(self, step: ScalarStep) -> bool:
        return step.name == "select" and not self._is_series(step.operands[0])

    def _is_series(self, operand: Any) -> bool:
        return is_result(operand) and self.varies[operand]

    def _series(self, operand: Any) -> str:
        step = self.program.steps[operand]
        return step.operands[0] if step.name == "input" else f"s{operand}"

    def _reciprocal(self, operand: Operand) -> str:
        if not is_result(operand):
            return f"(1.0 / {name_of(operand)})"
        member = f"r{operand}"
        self.reciprocals[member] = name_of(operand)
        return member

    def _array(self, name: str) -> str:
        self.arrays.append(name)
        return name

    def _line(self, target: str, step: ScalarStep) -> str:
        name, first, second = step.name, step.operands[0], step.operands[-1]
        if name in ("add", "sub"):
            return f"{target}[k] = {self.term(first)} {ARITHMETIC[name]} {self.term(second)};"
        if name == "neg":
            return f"{target}[k] = -{self.term(first)};"
        if name == "mul":
            if self._is_series(first) and self._is_series(second):
                a, b = self._series(first), self._series(second)
                if a == b:
                    return f"{target}[k] = square_term({a}, k);"
                return f"{target}[k] = product_term({a}, {b}, k);"
            if self._is_series(first):
                first, second = second, first
            return f"{target}[k] = {name_of(first)} * {self.term(second)};"
        if name == "div":
            if not self._is_series(second):
                return f"{target}[k] = {self.term(first)} * {self._reciprocal(second)};"
            b = self._series(second)
            return f"{target}[k] = quotient_term({self.term(first)}, {b}, {target}, k);"
        if name == "select":
            choice = f"{self.term(step.operands[1])} : {self.term(second)}"
            return f"{target}[k] = {name_of(first)} != 0.0 ? {choice};"
        if name == "pow":
            return self._power(target, first, second)
        return self._function(target, name, self._series(first))

    def _power(self, target: str, base: Operand, exponent: Operand) -> str:
        if not self._is_series(exponent):
            a, value = self._series(base), name_of(exponent)
            return _recurrence(
                target, f"each_pow({a}[0], {value})", f"power_term({a}, {value}, {target}, k)"
            )
        # a^b = exp(b log a)
        product, b = self._array(f"{target}_product"), self._series(exponent)
        if self._is_series(base):
            a, log = self._series(base), self._array(f"{target}_log")
            lines = _recurrence(log, f"each_log({a}[0])", f"log_term({a}, {log}, k)")
            lines += f" {product}[k] = product_term({log}, {b}, k);"
        else:
            lines = f"{product}[k] = each_log({name_of(base)}) * {b}[k];"
        power = _recurrence(
            target, f"each_exp({product}[0])", f"chain_term({product}, {target}, k)"
        )
        return f"{lines} {power}"

    def _function(self, target: str, name: str, a: str) -> str:
        """Return the recurrence of f(a). If f'(a) = g, the coefficient k of f follows from those of
        g below k.
        """
        start = f"each_{name}({a}[0])"
        if name == "exp":
            return _recurrence(target, start, f"chain_term({a}, {target}, k)")
        if name == "log":
            return _recurrence(target, start, f"log_term({a}, {target}, k)")
        if name in ("sqrt", "cbrt"):
            exponent = "0.5" if name == "sqrt" else "1.0 / 3"
            return _recurrence(target, start, f"power_term({a}, {exponent}, {target}, k)")
        if name in ("sin", "cos") and a in self._circular:
            return f"{target}[k] = {self._circular[a][name == 'cos']}[k];"
        g = self._array(f"{target}_g")
        if name in ("sin", "cos"):
            self._circular[a] = (target, g) if name == "sin" else (g, target)
        chain = _recurrence(target, start, f"chain_term({a}, {g}, k)")
        if name == "expm1":
            return f"{chain} {_recurrence(g, f'each_exp({a}[0])', f'{target}[k]')}"
        if name in ("tanh", "tan"):
            sign = "-" if name == "tanh" else "+"
            square = f"square_term({target}, k)"
            return f"{chain} {g}[k] = (k == 0 ? 1.0 : 0.0) {sign} {square};"
        if name in _PAIRS:
            other, sign, back = _PAIRS[name]
            chain = _recurrence(target, start, f"{sign}chain_term({a}, {g}, k)")
            back_chain = f"{back}chain_term({a}, {target}, k)"
            return f"{chain} {_recurrence(g, f'each_{other}({a}[0])', back_chain)}"
        w, square = self._array(f"{target}_w"), f"square_term({a}, k)"
        if name in _POWERS:
            factor, constant, sign, exponent = _POWERS[name]
            chain = _recurrence(target, start, f"{factor}chain_term({a}, {g}, k)")
            power = f"power_term({w}, {exponent}, {g}, k)"
            return (
                f"{chain} {w}[k] = (k == 0 ? {constant} : 0.0) {sign} {square}; "
                f"{_recurrence(g, f'each_pow({w}[0], {exponent})', power)}"
            )
        if name == "log1p":
            log = _recurrence(target, start, f"log_term({w}, {target}, k)")
            return f"{w}[k] = {a}[k] + (k == 0 ? 1.0 : 0.0); {log}"
        # erf' = 2 / sqrt(pi) exp(-a^2), erfc' = -erf'
        factor = literal(math.copysign(2 / math.sqrt(math.pi), 1 if name == "erf" else -1))
        chain = _recurrence(target, start, f"{factor} * chain_term({a}, {g}, k)")
        exponential = _recurrence(g, f"each_exp({w}[0])", f"chain_term({w}, {g}, k)")
        return f"{chain} {w}[k] = -{square}; {exponential}"


def _recurrence(target: str, start: str, term: str) -> str:
    """Return the assignment of the coefficient k, for 0 and for larger k."""
    return f"{target}[k] = k == 0 ? {start} : {term};"
