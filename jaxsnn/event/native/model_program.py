"""Programs of elementwise operations: those of a neuron model, traced by JAX, as C++ expressions.

JAX traces a method of the model, or its product with a Jacobian, for a few neurons. Operations
that treat all neurons alike become operations on the numbers of one neuron; others are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr

from jaxsnn.wording import Text

#: Number of a step of a `ScalarProgram`, whose result is meant, or a constant.
Operand = int | float | bool
#: Number of neurons for which models are traced: operations on other shapes are refused.
NEURONS = 3
#: Operations of JAX that contain the program of a function, with the parameter that has it.
_CALLS = {
    **dict.fromkeys(("jit", "pjit", "checkpoint", "remat2"), "jaxpr"),
    **dict.fromkeys(("closed_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}
_COPIES = {"copy", "copy_p", "broadcast_in_dim", "convert_element_type", "stop_gradient", "reshape"}
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LOGIC = {"and": "&&", "or": "||", "xor": "!="}
#: Operations whose results are not analytic where the condition changes.
BRANCHES = {*_COMPARISONS, *_LOGIC, "not", "select", "max", "min", "abs", "sign"}
#: Functions of the C++ library with the same names.
FUNCTIONS = {
    *("exp", "expm1", "log", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "sinh", "cosh", "tanh"),
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "pow"),
}


class UnsupportedOperationError(Exception):
    """Error for a model that cannot be translated, with the reason as its text."""


class ScalarStep(NamedTuple):
    """Operation of a `ScalarProgram`; the operand of "input" is a C++ expression."""

    name: str
    operands: tuple[Any, ...]


class ScalarProgram:
    """Sequence of operations on numbers, without repetitions.

    Args:
        analytic: leave out the case x = 0 of log(x) in JAX's derivative of x^y by y, as it has no
            Taylor series; log(0) is then infinite.
    """

    def __init__(self, *, analytic: bool = False) -> None:
        self._analytic = analytic
        self.steps: list[ScalarStep] = []
        self._numbers: dict[Any, int] = {}

    def add(self, name: str, *operands: Any) -> Operand:
        """Append an operation, unless its result exists or is trivial, and return the result."""
        if name in ("mul", "add"):  # numbers behind results, and results in one order
            operands = tuple(sorted(operands, key=lambda o: (isinstance(o, float), o)))
        neutral = {"mul": 1.0, "div": 1.0, "add": 0.0, "sub": 0.0}.get(name)
        if neutral is not None and isinstance(operands[1], float):
            if operands[1] == neutral:
                return operands[0]
            if name == "mul" and operands[1] == 0.0:
                return 0.0
        if self._analytic and name == "log" and is_result(operands[0]):
            inner, choice = self.steps[int(operands[0])]
            condition: Any = choice[0] if inner == "select" else None
            if is_result(condition) and self.steps[condition] == ("eq", (choice[2], 0.0)):
                operands = choice[2:]
        # True == 1 == 1.0, so the types belong to the key
        key = name, *((type(operand), operand) for operand in operands)
        if key not in self._numbers:
            self._numbers[key] = len(self.steps)
            self.steps.append(ScalarStep(name, operands))
        return self._numbers[key]

    def trace(
        self,
        method: str,
        function: Callable[..., Any],
        inputs: Sequence[Operand],
        *arguments: Any,
    ) -> list[Operand]:
        """Append the operations of a function, and return its results.

        Args:
            method: name of the method of the model, for messages.
            inputs: results that are the leaves of the arguments.
            arguments: shapes of the arguments.

        Raises:
            UnsupportedOperationError: an operation has no translation.
        """
        closed = jax.make_jaxpr(function)(*arguments)
        jaxpr, used = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
        values = [value for value, is_used in zip(inputs, used, strict=True) if is_used]
        try:
            return self._inline(jaxpr, closed.consts, values)
        except UnsupportedOperationError as error:
            raise UnsupportedOperationError(
                Text("'{method}' contains {operation}", method=method, operation=str(error))
            ) from error

    def _inline(
        self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Operand]
    ) -> list[Operand]:
        values: dict[Any, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            if np.unique(np.asarray(const)).size != 1:
                raise UnsupportedOperationError(Text("an array of different numbers"))
            values[var] = _number(np.asarray(const).reshape(-1)[0])

        def read(atom: Any) -> Operand:
            return _number(atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            name, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
            inner = equation.params.get(_CALLS.get(name, ""))
            if isinstance(inner, ClosedJaxpr):
                results = self._inline(inner.jaxpr, inner.consts, operands)
            elif isinstance(inner, Jaxpr):
                results = self._inline(inner, (), operands)
            else:
                variables: list[Any] = [*equation.invars, *equation.outvars]
                shapes = {var.aval.shape for var in variables}
                if not shapes <= {(), (NEURONS,)}:
                    raise UnsupportedOperationError(
                        Text("the operation {name} between the entries of an array", name=name)
                    )
                results = [self._translate(name, operands, equation)]
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _translate(self, name: str, operands: list[Operand], equation: Any) -> Operand:
        kinds = [_kind(var) for var in (*equation.invars, *equation.outvars)]
        if name in _COPIES:
            if kinds[0] == kinds[1] or kinds == ["other", "float"]:
                return operands[0]
            if kinds == ["bool", "float"]:
                return self.add("select", operands[0], 1.0, 0.0)
        # Integers that are not refused are constants, such as an exponent.
        if "other" in kinds and not (name == "pow" and kinds[-1] == "float"):
            raise UnsupportedOperationError(
                Text("the operation {name} of numbers that are not floating-point", name=name)
            )
        if name == "add_any":
            return self.add("add", *operands)
        if name in ARITHMETIC or name in FUNCTIONS or name in ("neg", "max", "min", "abs", "sign"):
            return self.add(name, *operands)
        if name in _COMPARISONS or name in _LOGIC or name == "not":
            return self.add(name, *operands)
        if name == "exp2":
            return self.add("exp", self.add("mul", operands[0], math.log(2)))
        if name == "logistic":
            exponential = self.add("exp", self.add("neg", operands[0]))
            return self.add("div", 1.0, self.add("add", exponential, 1.0))
        if name == "square":
            return self.add("mul", operands[0], operands[0])
        if name == "integer_pow":
            return self._power(operands[0], equation.params["y"])
        if name == "rsqrt":
            return self.add("pow", operands[0], -0.5)
        if name == "select_n" and len(operands) == 3 and kinds[0] == "bool":
            return self.add("select", operands[0], operands[2], operands[1])
        if name == "clamp":
            low, value, high = operands
            return self.add("min", self.add("max", value, low), high)
        raise UnsupportedOperationError(
            Text("the operation {name}, which has no translation", name=name)
        )

    def _power(self, base: Operand, exponent: int) -> Operand:
        if exponent < 0:
            return self.add("div", 1.0, self._power(base, -exponent))
        if exponent == 0:
            return 1.0
        half = self._power(base, exponent // 2)
        square = half if exponent == 1 else self.add("mul", half, half)
        return self.add("mul", square, base) if exponent % 2 else square

    def depends(self, inputs: Iterable[Operand]) -> list[bool]:
        """Return for each step whether it depends on some inputs."""
        starts = set(inputs)
        result: list[bool] = []
        for number, step in enumerate(self.steps):
            result.append(
                number in starts or any(is_result(o) and result[o] for o in step.operands)
            )
        return result

    def needed(self, results: Iterable[Operand]) -> set[int]:
        """Return the numbers of the steps that some results depend on."""
        numbers = {int(result) for result in results if is_result(result)}
        for number in reversed(range(len(self.steps))):
            if number in numbers:
                numbers |= {o for o in self.steps[number].operands if is_result(o)}
        return numbers


def is_result(operand: Any) -> bool:
    """Return whether an operand is a result, and no constant."""
    return type(operand) is int


def _kind(var: Any) -> str:
    dtype = var.aval.dtype
    if jnp.issubdtype(dtype, jnp.bool_):
        return "bool"
    return "float" if jnp.issubdtype(dtype, jnp.floating) else "other"


def _number(value: Any) -> float | bool:
    return bool(value) if np.asarray(value).dtype == bool else float(value)


# ---- C++


def literal(value: float | bool) -> str:
    """Return a number in C++."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if math.isnan(value):
        return 'std::nan("")'
    if math.isinf(value):
        return ("-" if value < 0 else "") + "std::numeric_limits<double>::infinity()"
    return f"{value!r}" if value >= 0 else f"({value!r})"


def name_of(operand: Operand) -> str:
    """Return the C++ name of a result, or a constant."""
    return f"t{operand}" if is_result(operand) else literal(operand)


def expression(step: ScalarStep) -> str:
    """Return the C++ expression of an operation on numbers."""
    name = step.name
    if name == "input":
        return step.operands[0]
    operands = [name_of(operand) for operand in step.operands]
    infix = (ARITHMETIC | _COMPARISONS | _LOGIC).get(name)
    if infix:
        return f"{operands[0]} {infix} {operands[1]}"
    if name in ("not", "neg"):
        return f"{'!' if name == 'not' else '-'}{operands[0]}"
    if name == "select":
        return f"{operands[0]} ? {operands[1]} : {operands[2]}"
    a, b = (*operands, "")[:2]
    if name in ("max", "min"):  # NaN if one of them is
        return f"{a} {'>' if name == 'max' else '<'} {b} || {a} != {a} ? {a} : {b}"
    if name == "sign":
        return f"{a} != {a} ? {a} : double({a} > 0) - double({a} < 0)"
    return f"std::{name}({', '.join(operands)})"


def is_bool(step: ScalarStep) -> bool:
    """Return whether the result of an operation is a truth value."""
    return step.name in _COMPARISONS or step.name in _LOGIC or step.name == "not"
