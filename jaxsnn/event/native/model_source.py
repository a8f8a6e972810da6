"""Translates a neuron model whose equations are not linear to C++, for the kernels of integrated.h.

JAX traces the methods of the model and their products with Jacobians. The programs that it returns are
sequences of elementwise operations. Here they become functions of numbers, and functions that
compute Taylor coefficients along a trajectory: each operation has a recurrence (series.h).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr

from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.event_arrays import NeuronConstants
from jaxsnn.event.native.native_build import model_library
from jaxsnn.wording import Text

#: Number of a result of a `Program`, or a constant.
Operand = int | float | bool
#: Number of neurons for which models are traced: operations on other shapes are refused.
_NEURONS = 3
#: Operations of JAX that contain the program of a function.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
_COPIES = {"copy", "copy_p", "broadcast_in_dim", "convert_element_type", "stop_gradient", "reshape"}
_BINARY = {"add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
#: Functions of the C++ library, by operation.
_FUNCTIONS = {
    name: name
    for name in (
        *("exp", "expm1", "log", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "sinh", "cosh"),
        *("tanh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc"),
    )
}


#: What the programs use of series.h.
_SERIES_FUNCTIONS = (
    *("kSeriesTerms", "Lanes", "chain_term", "constant_term", "log_term", "power_term"),
    *("product_term", "quotient_term", "square_term", "each_pow"),
    *(f"each_{name}" for name in _FUNCTIONS),
)


class UnsupportedOperationError(Exception):
    """Error for a model that cannot be translated, with the reason as its text."""


class _Step(NamedTuple):
    """Operation of a `Program`; the operands of "input" are a C++ expression."""

    name: str
    operands: tuple[Any, ...]


class Program:
    """Sequence of operations on numbers, without repetitions."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self._numbers: dict[Any, int] = {}

    def add(self, name: str, *operands: Any) -> Operand:
        """Append an operation, unless its result exists or is trivial, and return the result."""
        if name in ("mul", "add"):  # numbers behind results, and results in one order
            operands = tuple(sorted(operands, key=lambda o: (isinstance(o, float), o)))
        first, second = (*operands, None)[:2]
        neutral = {"mul": 1.0, "div": 1.0, "add": 0.0, "sub": 0.0}.get(name)
        if neutral is not None and isinstance(second, float) and second == neutral:
            return first
        if name == "mul" and isinstance(second, float) and second == 0.0:
            return 0.0
        # True == 1 == 1.0, so the types belong to the key
        key = name, *((type(operand), operand) for operand in operands)
        if key not in self._numbers:
            self._numbers[key] = len(self.steps)
            self.steps.append(_Step(name, operands))
        return self._numbers[key]

    def power(self, base: Operand, exponent: int) -> Operand:
        """Append a power with an integer exponent."""
        if exponent < 0:
            return self.add("div", 1.0, self.power(base, -exponent))
        if exponent == 0:
            return 1.0
        half = self.power(base, exponent // 2)
        square = half if exponent == 1 else self.add("mul", half, half)
        return self.add("mul", square, base) if exponent % 2 else square

    def inline(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Operand]) -> list:
        """Append the operations of a JAX program, and return its results.

        Raises:
            UnsupportedOperationError: an operation has no translation.
        """
        values: dict[Any, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            if np.unique(np.asarray(const)).size != 1:
                raise UnsupportedOperationError("it contains an array")
            values[var] = _number(np.asarray(const).reshape(-1)[0])

        def read(atom: Any) -> Operand:
            return _number(atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            name, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
            if name in _CALLS:
                inner = equation.params[_CALLS[name]]
                inner, inner_consts = (
                    (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
                )
                results = self.inline(inner, inner_consts, operands)
            else:
                shapes = {var.aval.shape for var in (*equation.invars, *equation.outvars)}
                if not shapes <= {(), (_NEURONS,)}:
                    raise UnsupportedOperationError(f"{name} changes the shape of an array")
                results = [self._translated(name, operands, equation)]
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _translated(self, name: str, operands: list[Operand], equation: Any) -> Operand:
        parameters = equation.params
        kind = equation.outvars[0].aval.dtype
        is_bool = jnp.issubdtype(kind, jnp.bool_)
        if name in _COPIES:
            of_bool = jnp.issubdtype(equation.invars[0].aval.dtype, jnp.bool_)
            is_changed = name == "convert_element_type" and of_bool != is_bool
            if not is_changed:
                return operands[0]
        elif not is_bool and not jnp.issubdtype(kind, jnp.floating):
            raise UnsupportedOperationError(f"{name} of integers")
        elif name in _BINARY:
            return self.add("add" if name == "add_any" else name, *operands)
        elif name in _FUNCTIONS or name in ("neg", "pow"):
            return self.add(name, *operands)
        elif name == "exp2":
            return self.add("exp", self.add("mul", operands[0], math.log(2)))
        elif name == "logistic":
            exponential = self.add("exp", self.add("neg", operands[0]))
            return self.add("div", 1.0, self.add("add", exponential, 1.0))
        elif name == "square":
            return self.add("mul", operands[0], operands[0])
        elif name == "integer_pow":
            return self.power(operands[0], parameters["y"])
        elif name == "rsqrt":
            return self.add("pow", operands[0], -0.5)
        elif name in _COMPARISONS or (name in ("and", "or", "not", "xor") and is_bool):
            return self.add(name, *operands)
        elif (
            name == "select_n"
            and len(operands) == 3
            and jnp.issubdtype(equation.invars[0].aval.dtype, jnp.bool_)
        ):
            return self.add("select", operands[0], operands[2], operands[1])
        elif name in ("max", "min"):
            is_first = self.add("ge" if name == "max" else "le", *operands)
            return self.add("select", is_first, *operands)
        elif name == "clamp":
            low, value, high = operands
            value = self.add("select", self.add("lt", value, low), low, value)
            return self.add("select", self.add("gt", value, high), high, value)
        elif name == "abs":
            is_negative = self.add("lt", operands[0], 0.0)
            return self.add("select", is_negative, self.add("neg", operands[0]), operands[0])
        elif name == "sign":
            is_positive = self.add("gt", operands[0], 0.0)
            is_negative = self.add("lt", operands[0], 0.0)
            other = self.add("select", is_negative, -1.0, 0.0)
            return self.add("select", is_positive, 1.0, other)
        raise UnsupportedOperationError(name)

    # ---- which results depend on the state

    def varying(self, inputs: Iterable[Operand]) -> list[bool]:
        """Return for each result whether it depends on some inputs."""
        starts = set(inputs)
        varies: list[bool] = []
        for number, step in enumerate(self.steps):
            varies.append(
                number in starts
                or any(_is_result(operand) and varies[operand] for operand in step.operands)
            )
        return varies

    def needed(self, results: Iterable[Operand]) -> set[int]:
        """Return the numbers of the steps that some results depend on."""
        numbers = {result for result in results if _is_result(result)}
        for number in reversed(range(len(self.steps))):
            if number in numbers:
                numbers |= {o for o in self.steps[number].operands if _is_result(o)}
        return numbers


def _is_result(operand: Any) -> bool:
    return type(operand) is int


def _number(value: Any) -> float | bool:
    return bool(value) if np.asarray(value).dtype == bool else float(value)


# ---- C++ of numbers


def _literal(value: float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if math.isnan(value):
        return 'std::nan("")'
    if math.isinf(value):
        return ("-" if value < 0 else "") + "std::numeric_limits<double>::infinity()"
    return f"{value!r}" if value >= 0 else f"({value!r})"


def _name(operand: Operand) -> str:
    return f"t{operand}" if _is_result(operand) else _literal(operand)


def _expression(step: _Step) -> str:
    """Return the C++ expression of an operation on numbers."""
    name = step.name
    if name == "input":
        return step.operands[0]
    operands = [_name(operand) for operand in step.operands]
    if name in _BINARY:
        return f"{operands[0]} {_BINARY[name]} {operands[1]}"
    if name in _COMPARISONS:
        return f"{operands[0]} {_COMPARISONS[name]} {operands[1]}"
    if name in ("and", "or", "xor"):
        return f"{operands[0]} {dict(zip(('and', 'or', 'xor'), '&|^', strict=True))[name]} {operands[1]}"
    if name == "not":
        return f"!{operands[0]}"
    if name == "neg":
        return f"-{operands[0]}"
    if name == "select":
        return f"{operands[0]} ? {operands[1]} : {operands[2]}"
    return f"std::{name}({', '.join(operands)})"


def _function(signature: str, program: Program, results: Sequence[tuple[str, Operand]]) -> str:
    """Return a C++ function that assigns results of a program to expressions."""
    needed = program.needed(value for _, value in results)
    lines = [
        f"    const auto t{number} = {_expression(step)};"
        for number, step in enumerate(program.steps)
        if number in needed
    ]
    lines += [f"    {target} {_name(value)};" for target, value in results if value is not None]
    return "\n".join([f"  static void {signature} {{", *lines, "  }"])


# ---- C++ of Taylor coefficients


class _SeriesWriter:
    """Writes the computation of the coefficients k of the results of a program."""

    method = "rate"  # of the model, for messages

    def __init__(self, program: Program, inputs: Iterable[Operand]) -> None:
        self.program = program
        self.varies = program.varying(inputs)
        self.arrays: list[str] = []  # members
        self.lines: dict[int, str] = {}  # by number of the operation
        self.reciprocals: dict[str, str] = {}  # member -> constant
        self._circular: dict[str, tuple[str, str]] = {}  # series -> those of its sine and cosine

    def write(self, numbers: Iterable[int]) -> None:
        """Write the operations of some numbers."""
        for number in sorted(numbers):
            step = self.program.steps[number]
            if step.name == "input" or not self.varies[number]:
                continue
            self.arrays.append(f"s{number}")
            self.lines[number] = self._line(f"s{number}", step)

    def _is_series(self, operand: Any) -> bool:
        return _is_result(operand) and self.varies[operand]

    def series(self, operand: Operand) -> str:
        """Return the name of an array of coefficients."""
        step = self.program.steps[int(operand)]
        return step.operands[0] if step.name == "input" else f"s{operand}"

    def term(self, operand: Operand) -> str:
        """Return the coefficient k of an operand, which may be a constant."""
        if self._is_series(operand):
            return f"{self.series(operand)}[k]"
        return f"constant_term({_name(operand)}, k)"

    def _reciprocal(self, operand: Operand) -> str:
        if not _is_result(operand):
            return _literal(1 / float(operand)) if operand else f"(1.0 / {_name(operand)})"
        member = f"r{operand}"
        self.reciprocals[member] = _name(operand)
        return member

    def _helper(self, name: str) -> str:
        self.arrays.append(name)
        return name

    def _line(self, target: str, step: _Step) -> str:
        name, operands = step.name, step.operands
        first, second = (*operands, None)[:2]
        if name in ("add", "sub"):
            return f"{target}[k] = {self.term(first)} {_BINARY[name]} {self.term(second)};"
        if name == "neg":
            return f"{target}[k] = -{self.term(first)};"
        if name == "mul":
            both = self._is_series(first) and self._is_series(second)
            if both:
                a, b = self.series(first), self.series(second)
                if a == b:
                    return f"{target}[k] = square_term({a}, k);"
                return f"{target}[k] = product_term({a}, {b}, k);"
            factor, of = (first, second) if self._is_series(second) else (second, first)
            return f"{target}[k] = {_name(factor)} * {self.series(of)}[k];"
        if name == "div":
            if not self._is_series(second):
                factor = self._reciprocal(second)
                return f"{target}[k] = {self.series(first)}[k] * {factor};"
            b = self.series(second)
            return f"{target}[k] = quotient_term({self.term(first)}, {b}, {target}, k);"
        if name in _COMPARISONS or name in ("and", "or", "xor", "not", "select"):
            # The solution is not analytic where a branch changes.
            raise UnsupportedOperationError(
                Text("{name} contains the operation {operation}", name=self.method, operation=name)
            )
        if name == "pow":
            return self._power(target, first, second)
        return self._function(target, name, self.series(first))

    def _power(self, target: str, base: Operand, exponent: Operand) -> str:
        if not self._is_series(exponent):
            a, value = self.series(base), _name(exponent)
            return (
                f"{target}[k] = k == 0 ? each_pow({a}[0], {value}) : "
                f"power_term({a}, {value}, {target}, k);"
            )
        # a^b = exp(b log a)
        log, scaled = self._helper(f"{target}_log"), self._helper(f"{target}_product")
        b = self.series(exponent)
        if self._is_series(base):
            a = self.series(base)
            lines = [
                f"{log}[k] = k == 0 ? each_log({a}[0]) : log_term({a}, {log}, k);",
                f"{scaled}[k] = product_term({log}, {b}, k);",
            ]
        else:
            lines = [f"{scaled}[k] = each_log({_name(base)}) * {b}[k];"]
        lines.append(
            f"{target}[k] = k == 0 ? each_exp({scaled}[0]) : chain_term({scaled}, {target}, k);"
        )
        return " ".join(lines)

    def _function(self, target: str, name: str, a: str) -> str:
        """Write f(a) with f' = g(a): the coefficient k of f follows from those of g below k."""

        def chain(derivative: str) -> str:
            value = f"each_{name}({a}[0])"
            return f"{target}[k] = k == 0 ? {value} : chain_term({a}, {derivative}, k);"

        if name == "exp":
            return chain(target)
        if name == "log":
            return f"{target}[k] = k == 0 ? each_log({a}[0]) : log_term({a}, {target}, k);"
        if name in ("sqrt", "cbrt"):
            exponent = {"sqrt": "0.5", "cbrt": "(1.0 / 3)"}[name]
            value = f"each_{name}({a}[0])"
            return f"{target}[k] = k == 0 ? {value} : power_term({a}, {exponent}, {target}, k);"
        if name in ("sin", "cos") and a in self._circular:
            return f"{target}[k] = {self._circular[a][name == 'cos']}[k];"
        g = self._helper(f"{target}_by")
        if name in ("sin", "cos"):
            self._circular[a] = (target, g) if name == "sin" else (g, target)
        if name == "expm1":
            return f"{chain(g)} {g}[k] = k == 0 ? each_exp({a}[0]) : {target}[k];"
        if name in ("tanh", "tan"):
            sign = "-" if name == "tanh" else "+"
            square = f"square_term({target}, k)"
            return f"{chain(g)} {g}[k] = (k == 0 ? 1.0 : 0.0) {sign} {square};"
        pairs = {
            "sin": ("cos", ""),
            "cos": ("sin", "-"),
            "sinh": ("cosh", ""),
            "cosh": ("sinh", ""),
        }
        if name in pairs:
            # (f, g) with f' = +-g a'
            other, sign = pairs[name]
            back = "-" if name == "sin" else ""
            value = f"each_{name}({a}[0])"
            return (
                f"{target}[k] = k == 0 ? {value} : {sign}chain_term({a}, {g}, k); "
                f"{g}[k] = k == 0 ? each_{other}({a}[0]) : {back}chain_term({a}, {target}, k);"
            )
        # derivative g = factor * w^exponent with w = constant + sign a^2
        powers = {
            "atan": (1, "+", -1),
            "asin": (1, "-", -0.5),
            "acos": (1, "-", -0.5),
            "asinh": (1, "+", -0.5),
            "acosh": (-1, "+", -0.5),
            "atanh": (1, "-", -1),
        }
        w, square = self._helper(f"{target}_w"), f"square_term({a}, k)"
        if name in powers:
            constant, sign, exponent = powers[name]
            factor = "-" if name == "acos" else ""
            value = f"each_{name}({a}[0])"
            return (
                f"{target}[k] = k == 0 ? {value} : {factor}chain_term({a}, {g}, k); "
                f"{w}[k] = (k == 0 ? {constant}.0 : 0.0) {sign} {square}; "
                f"{g}[k] = k == 0 ? each_pow({w}[0], {exponent}) : "
                f"power_term({w}, {exponent}, {g}, k);"
            )
        if name == "log1p":
            return (
                f"{w}[k] = {a}[k] + (k == 0 ? 1.0 : 0.0); "
                f"{target}[k] = k == 0 ? each_log1p({a}[0]) : log_term({w}, {target}, k);"
            )
        # erf' = 2 / sqrt(pi) exp(-a^2), erfc' = -erf'
        factor = math.copysign(2 / math.sqrt(math.pi), 1 if name == "erf" else -1)
        value = f"each_{name}({a}[0])"
        return (
            f"{target}[k] = k == 0 ? {value} : {_literal(factor)} * chain_term({a}, {g}, k); "
            f"{w}[k] = -{square}; "
            f"{g}[k] = k == 0 ? each_exp({w}[0]) : chain_term({w}, {g}, k);"
        )

    def constants(self, numbers: Iterable[int]) -> list[tuple[int, str]]:
        """Return the operations that do not vary, as (number, expression)."""
        return [
            (number, _expression(self.program.steps[number]))
            for number in sorted(numbers)
            if not self.varies[number]
        ]


def _series_class(
    name: str,
    program: Program,
    inputs: dict[str, list[Operand]],
    methods: Sequence[tuple[str, Sequence[tuple[str, Operand]], str]],
    members: Sequence[str],
) -> str:
    """Return a C++ class that computes coefficients of results of a program.

    Args:
        inputs: C++ array of the series -> inputs of the program.
        methods: signature, results (target, operand), and condition for which of them are computed
            ("" if always).
        members: declarations of the arrays.
    """
    writer = _SeriesWriter(program, [value for values in inputs.values() for value in values])
    everything = program.needed(value for _, results, _ in methods for _, value in results)
    writer.write(everything)
    bodies: dict[str, list[str]] = {}
    done: set[int] = set()
    for signature, results, condition in methods:
        fresh = program.needed(value for _, value in results)
        # Methods with the same signature are parts of one method; others repeat nothing but their
        # own operations.
        fresh, lines = fresh - done, bodies.setdefault(signature, [])
        done |= fresh
        part = [writer.lines[number] for number in sorted(fresh) if number in writer.lines]
        part += [f"{target} {writer.term(value)};" for target, value in results]
        if condition:
            lines += [f"if constexpr ({condition}) {{", *part, "}"]
        else:
            lines += part
    fixed = writer.constants(everything)
    stored = [number for number, _ in fixed if not _is_logical(program, number)]
    arrays = ", ".join(f"{array}[kSeriesTerms]" for array in writer.arrays)
    text = [f"struct {name} {{", *(f"  {member}" for member in members)]
    fields = [*(f"t{number}" for number in stored), *writer.reciprocals]
    if fields:
        text.append(f"  Lanes {', '.join(f'{field} = {{}}' for field in fields)};")
    if arrays:
        text.append(f"  Lanes {arrays};")
    text.append("  void set_lane(int lane, const double* c) {")
    text += [f"    const auto t{number} = {expression};" for number, expression in fixed]
    text += [f"    this->t{number}[lane] = t{number};" for number in stored]
    text += [f"    {member}[lane] = 1.0 / {of};" for member, of in writer.reciprocals.items()]
    text.append("  }")
    for signature, lines in bodies.items():
        text += [f"  {signature} {{", *(f"    {line}" for line in lines), "  }"]
    return "\n".join([*text, "};"])


def _is_logical(program: Program, number: int) -> bool:
    """Return whether a result is true or false."""
    name = program.steps[number].name
    return name in _COMPARISONS or name in ("and", "or", "xor", "not")


# ---- the source of a model


@cache
def model_source(neuron: IntegratedNeuron, structure: Any, dtype: str) -> str:
    """Return the C++ source of a model's kernels.

    Args:
        structure: tree structure of the model's constants, each of which is an array (neurons,).
        dtype: floating-point type of the network.

    Raises:
        UnsupportedOperationError: an operation of the model has no translation.
    """
    leaf = jax.ShapeDtypeStruct((_NEURONS,), np.dtype(dtype))
    constants = jax.tree.unflatten(structure, [leaf] * structure.num_leaves)
    state = (leaf,) * len(jax.eval_shape(neuron.begin, constants))
    count, size = structure.num_leaves, len(state)
    columns = [f"c[{n}]" for n in range(count)], [f"x[{n}]" for n in range(size)]
    of_p = [f"p[{n}]" for n in range(size)]

    def of_state(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of (constants, state) whose results have the shape of the neurons."""
        return lambda c, x: tuple(
            jnp.broadcast_to(part, x[0].shape) for part in _as_tuple(function(c, x))
        )

    def arrive(weight: Any, x: Any) -> Any:
        return neuron.arrive(x, weight)

    def back(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda c, x, p: jax.vjp(function, c, x)[1](p)

    functions = []
    for name in ("rate", "excess", "reset"):
        function = of_state(getattr(neuron, name))
        outputs = (leaf,) if name == "excess" else state
        program, results = _traced(name, function, columns, constants, state)
        targets = ["result ="] if name == "excess" else [f"y[{n}] =" for n in range(size)]
        if name == "excess":
            body = _function(
                "excess_into(const double* c, const double* x, double& result)",
                program,
                list(zip(targets, results, strict=True)),
            )
            body += (
                "\n  static double excess(const double* c, const double* x) {\n"
                "    double result;\n    excess_into(c, x, result);\n    return result;\n  }"
            )
        else:
            signature = f"{name}(const double* c, const double* x, double* y)"
            body = _function(signature, program, list(zip(targets, results, strict=True)))
        functions.append(body)
        p_columns = ["p"] if name == "excess" else of_p
        program, results = _traced(
            name, back(function), [*columns, p_columns], constants, state, outputs
        )
        by_c, by_x = results[:count], results[count:]
        vector = "double p" if name == "excess" else "const double* p"
        arguments = f"const double* c, const double* x, {vector}, double* by_c, double* by_x"
        targets = [f"if (by_c) by_c[{n}] +=" for n in range(count)]
        targets += [f"by_x[{n}] +=" for n in range(size)]
        functions.append(
            _function(
                f"{name}_back({arguments})",
                program,
                list(zip(targets, [*by_c, *by_x], strict=True)),
            )
        )
    arrive_function = of_state(arrive)
    arrive_columns = ["w"], columns[1]
    program, results = _traced("arrive", arrive_function, arrive_columns, leaf, state)
    functions.append(
        _function(
            "arrive(const double* x, double w, double* y)",
            program,
            [(f"y[{n}] =", value) for n, value in enumerate(results)],
        )
    )
    program, results = _traced(
        "arrive", back(arrive_function), [*arrive_columns, of_p], leaf, state, state
    )
    functions.append(
        _function(
            "arrive_back(const double* x, double w, const double* p, double* by_x, double* by_w)",
            program,
            [("*by_w +=", results[0]), *((f"by_x[{n}] +=", v) for n, v in enumerate(results[1:]))],
        )
    )
    series = _forward_series(neuron, of_state, columns[0], constants, state)
    back_series = _backward_series(of_state(neuron.rate), columns[0], constants, state)
    return "\n".join(
        [
            '#include "series.h"',
            "#include <limits>",
            "",
            "namespace {",
            *(f"using native::{name};" for name in _SERIES_FUNCTIONS),
            "struct Model {",
            f"  static constexpr int kVariables = {size}, kConstants = {count};",
            *functions,
            series,
            back_series,
            "};",
            "}  // namespace",
            "",
            '#include "integrated_calls.h"',
            "",
        ]
    )


def integration_obstacles(
    neuron: IntegratedNeuron, constants: NeuronConstants, dtype: str
) -> Iterator[str]:
    """Yield the reasons why the kernels cannot integrate a model; nothing if they can.

    Args:
        constants: constants of the model, (neurons,) each, which may be traced.
        dtype: floating-point type of the network.
    """
    kind = type(neuron).__name__
    leaves, structure = jax.tree.flatten(constants)
    if any(leaf.ndim != 1 for leaf in leaves):
        yield "its constants differ between positions or samples"
        return
    try:
        source = model_source(neuron, structure, dtype)
    except UnsupportedOperationError as error:
        yield Text(
            "the kernels cannot integrate its neuron model {type}: {reason}",
            type=kind,
            reason=str(error),
        )
        return
    if _moves_excess(neuron, structure, dtype):
        yield Text("arrivals of its neuron model {type} move V or its threshold at once", type=kind)
        return
    library = model_library(source, dtype)
    if not library.there:
        yield f"{library.reason}: {library.fix}"


def _moves_excess(neuron: IntegratedNeuron, structure: Any, dtype: str) -> bool:
    """Return whether the excess after an arrival depends on the weight, by its operations."""
    leaf = jax.ShapeDtypeStruct((_NEURONS,), np.dtype(dtype))
    constants = jax.tree.unflatten(structure, [leaf] * structure.num_leaves)
    state = (leaf,) * len(jax.eval_shape(neuron.begin, constants))

    def excess(weight: Any, constants: NeuronConstants, state: Any) -> Any:
        return neuron.excess(constants, neuron.arrive(state, weight))

    jaxpr = jax.make_jaxpr(excess)(leaf, constants, state).jaxpr
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][0]


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _traced(
    method: str,
    function: Callable[..., Any],
    columns: Sequence[Sequence[str]],
    *arguments: Any,
    program: Program | None = None,
    inputs: list[Operand] | None = None,
) -> tuple[Program, list[Operand]]:
    """Return the program of a function, and its results.

    Args:
        method: name of the method of the model, for messages.
        columns: C++ expressions of the leaves of each argument.
        program: program to which the operations are appended.
        inputs: receives the inputs of the program.
    """
    program = Program() if program is None else program
    closed = jax.make_jaxpr(function)(*arguments)
    jaxpr, used = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    names = [name for group in columns for name in group]
    values = [program.add("input", name) for name in names]
    if inputs is not None:
        inputs += values
    try:
        kept = [value for value, is_used in zip(values, used, strict=True) if is_used]
        return program, program.inline(jaxpr, closed.consts, kept)
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(
            Text("{name} contains the operation {operation}", name=method, operation=str(error))
        ) from error


def _forward_series(
    neuron: IntegratedNeuron,
    of_state: Callable[..., Any],
    constants_columns: Sequence[str],
    constants: NeuronConstants,
    state: tuple[Any, ...],
) -> str:
    columns = constants_columns, [f"x[{n}]" for n in range(len(state))]
    program, inputs = Program(), []
    _, rate = _traced(
        "rate", of_state(neuron.rate), columns, constants, state, program=program, inputs=inputs
    )
    _, excess = _traced(
        "excess", of_state(neuron.excess), columns, constants, state, program=program
    )
    next_results = [
        (f"x[{n}][k + 1] = unit * (1.0 / (k + 1)) *", value) for n, value in enumerate(rate)
    ]
    return _series_class(
        "Series",
        program,
        {"x": inputs[len(constants_columns) :]},
        [
            ("void next(int k, Lanes unit)", next_results, ""),
            ("void measure(int k)", [("excess[k] =", excess[0])], ""),
        ],
        [f"Lanes x[{len(state)}][kSeriesTerms + 1];", "Lanes excess[kSeriesTerms];"],
    )


def _backward_series(
    rate: Callable[..., Any],
    constants_columns: Sequence[str],
    constants: NeuronConstants,
    state: tuple[Any, ...],
) -> str:
    size, count = len(state), len(constants_columns)
    x, p = ([f"{name}[{n}]" for n in range(size)] for name in "xp")

    def both(c: Any, state: Any, costate: Any) -> Any:
        result, pull_back = jax.vjp(rate, c, state)
        return result, pull_back(costate)

    inputs: list[Operand] = []
    program, results = _traced(
        "rate", both, [constants_columns, x, p], constants, state, state, inputs=inputs
    )
    rates, by_c, by_x = results[:size], results[size : size + count], results[size + count :]
    moving = [
        (f"x[{n}][k + 1] = -unit * (1.0 / (k + 1)) *", value) for n, value in enumerate(rates)
    ]
    moving += [(f"p[{n}][k + 1] = unit * (1.0 / (k + 1)) *", value) for n, value in enumerate(by_x)]
    of_constants = [(f"by_constant[{n}][k] =", value) for n, value in enumerate(by_c)]
    signature = "template <bool kWithConstants> void next(int k, Lanes unit)"
    return _series_class(
        "BackSeries",
        program,
        {"x": inputs[count:]},
        [(signature, moving, ""), (signature, of_constants, "kWithConstants")],
        [
            f"Lanes x[{size}][kSeriesTerms + 1], p[{size}][kSeriesTerms + 1];",
            f"Lanes by_constant[{count}][kSeriesTerms];",
        ],
    )
