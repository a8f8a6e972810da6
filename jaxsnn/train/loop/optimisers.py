"""Optimisers and learning-rate schedules, by name or as optax objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax

from jaxsnn.errors import UsageError, as_number, first_line, shown, suggestion
from jaxsnn.network.network import Network
from jaxsnn.options import OPTIMISER, WEIGHT_DECAY
from jaxsnn.train.loop.constraints import Parameters
from jaxsnn.wording import Text

Schedule = Callable[[Any], Any]


def _momentum() -> optax.GradientTransformation:
    return optax.trace(decay=0.9)


#: Name -> what makes the direction of a step from gradients; its length is the schedule's.
OPTIMISERS: Mapping[str, Callable[[], optax.GradientTransformation]] = MappingProxyType(
    {
        "adam": optax.scale_by_adam,
        "adamw": optax.scale_by_adam,
        "adamax": optax.scale_by_adamax,
        "nadam": lambda: optax.scale_by_adam(nesterov=True),
        "lion": optax.scale_by_lion,
        "rmsprop": optax.scale_by_rms,
        "momentum": _momentum,
        "sgd": optax.identity,
    }
)

#: What Adam with weight decay takes off in a step, of a weight, where nobody says another.
ADAMW_DECAY = 0.01
_WARM_UP, _HALVINGS = 0.05, 6
#: Sizes of gradients by which optimisers are told apart: more than some gather into one step.
_PROBES = (1.0, -0.25, 3.0, 30.0, 300.0, -1e-2, 1e-4, 10.0, 1.0)


def _cosine(phase: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * phase))


#: Name -> learning rate as a fraction of the largest, by the phase of the run from 0 to 1.
SCHEDULES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "cosine": _cosine,
        "constant": np.ones_like,
        "linear": lambda phase: 1 - phase,
        "exponential": lambda phase: 2.0 ** (-_HALVINGS * phase),
        "warm-up": lambda phase: np.where(
            phase < _WARM_UP, phase / _WARM_UP, _cosine((phase - _WARM_UP) / (1 - _WARM_UP))
        ),
    }
)


def optimiser_of(
    choice: str | optax.GradientTransformation, weight_decay: float | None = None
) -> optax.GradientTransformation:
    """The optimiser of a name, or the one that is given.

    Args:
        weight_decay: of weights, decoupled from the gradient: in a step each loses this fraction of
            itself, times the learning rate. None: that of the name.

    Raises:
        UsageError: there is no such optimiser, what is given is none, or shall decay weights, too.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    if isinstance(choice, str):
        usual = ADAMW_DECAY if choice == "adamw" else 0.0
        return _named(choice, usual if weight_decay is None else weight_decay)
    if weight_decay:
        raise UsageError(
            Text(
                "{option} is {weight_decay:g}, and an optimiser is given",
                option=WEIGHT_DECAY,
                weight_decay=weight_decay,
            ),
            fix="let it decay the weights itself, optax.add_decayed_weights, or name one",
        )
    if isinstance(choice, type) or not all(hasattr(choice, name) for name in ("init", "update")):
        raise UsageError(
            Text(
                "{optimiser} is {choice}, which has no init and update",
                optimiser=OPTIMISER,
                choice=shown(choice),
            ),
            fix="pass a name, or what optax makes, such as optax.adam(1e-3)",
        )
    return choice


@cache
def _named(name: str, weight_decay: float) -> optax.GradientTransformation:
    """The same object each time, so that runs share compiled code."""
    if name not in OPTIMISERS:
        raise UsageError(f"there is no optimiser '{name}'", fix=suggestion(name, OPTIMISERS))
    if not weight_decay:
        return OPTIMISERS[name]()
    return optax.chain(
        OPTIMISERS[name](), optax.add_decayed_weights(weight_decay, mask=_only_weights)
    )


def _only_weights(raw: Any) -> Any:
    """Which parameters decay: not biases, delays or constants of neurons."""
    return {node: {name: name == "weight" for name in own} for node, own in raw.items()}


def refuse_decay(
    choice: Any, weight_decay: float | None, raw: Parameters, network: Network
) -> None:
    """Refuse to decay weights of which the optimiser moves another number, as of those with limits.

    Args:
        raw: what the optimiser moves, to begin with.

    Raises:
        UsageError: names the first of them.
    """
    decays = weight_decay if weight_decay is not None else choice == "adamw"
    for node, own in raw.items() if decays else ():
        weight = own.get("weight")
        if weight is not None and not np.allclose(weight, network.parameters[node]["weight"]):
            raise UsageError(
                f"node '{node}': its weight has limits, and weight_decay takes its part off weights"
                " without any",
                fix=Text(
                    'say {weight_decay}, of "adamw" take "adam"',
                    weight_decay=WEIGHT_DECAY.set_to(0),
                ),
                node=node,
            )


def refuse_unfit_optimiser(choice: Any, raw: Parameters) -> None:
    """Refuse an optimiser that asks for more than a gradient and parameters, as line searches do, or
    for others than those of a network.

    Args:
        raw: what it will move.

    Raises:
        UsageError: says what it asks for, or how it fails.
    """
    if isinstance(choice, str):
        return
    try:
        jax.eval_shape(lambda raw: choice.update(raw, choice.init(raw), raw), raw)
    except Exception as error:
        looks = isinstance(error, jax.errors.JAXTypeError)  # one kind of TypeError
        more = isinstance(error, TypeError) and not looks
        what = "takes more than" if more else f"fails by {type(error).__name__} with"
        raise UsageError(
            f"optimiser {what} a gradient and parameters: {first_line(error)}",
            fix="compute with jax.numpy, for what it is given is traced"
            if looks
            else "pass one that takes these alone, such as optax.adam(1e-3)",
        ) from error


def optimiser_notes(choice: Any, raw: Parameters) -> list[str]:
    """What an optimiser asks for that training does not do; what cannot be trained with is refused.

    Args:
        raw: what it will move.

    Raises:
        UsageError: as `refuse_unfit_optimiser`.
    """
    refuse_unfit_optimiser(choice, raw)
    if isinstance(choice, str):
        return []
    memory = jax.eval_shape(choice.init, raw)
    # as `optax.contrib.schedule_free_eval_params` knows it
    parts = jax.tree.leaves(memory, is_leaf=_is_schedule_free)
    if not any(map(_is_schedule_free, parts)):
        return []
    return [
        "optimiser is schedule-free: evaluated and kept are the parameters that it trains at, not"
        " those of schedule_free_eval_params: let training keep a moving average in their place"
    ]


def _is_schedule_free(memory: Any) -> bool:
    return hasattr(memory, "b1") and hasattr(memory, "z")


def optimiser_identity(choice: Any, raw: Parameters) -> tuple[np.ndarray, ...]:
    """What tells optimisers of the user's apart: how far they go by some gradients, step by step, to
    a few digits. Of one by name, whose settings are recorded, nothing; of one that fails, neither.

    Args:
        raw: what it will move.
    """
    if isinstance(choice, str):
        return ()
    try:
        state, update, found = choice.init(raw), jax.jit(choice.update), []
        for size in _PROBES:
            gradient = jax.tree.map(lambda value, size=size: size * (value + 0.1), raw)
            way, state = update(gradient, state, raw)
            found += [f"{float(np.linalg.norm(leaf)):.3g}" for leaf in jax.tree.leaves(way)]
    except Exception:  # what a user's own optimiser raises it raises in training, too
        return ()
    return (np.frombuffer(" ".join(found).encode(), np.uint8),)


def learning_rates(
    schedule: str | Schedule, learning_rate: float, epochs: int, batches: int
) -> np.ndarray:
    """Learning rate of each step, (epochs, batches).

    Args:
        schedule: a name of `SCHEDULES`, or an optax schedule: a function of the number of the step,
            whose values are taken as they are.

    Raises:
        UsageError: there is no such schedule, or it gives what is no rate.
    """
    steps = np.arange(epochs * batches)
    if callable(schedule):
        given = [schedule(int(step)) for step in steps]
        rates = np.asarray([as_number(rate) for rate in given])
        if (bad := np.flatnonzero(~((rates >= 0) & (rates < np.inf)))).size:
            raise UsageError(
                f"schedule gives {shown(given[bad[0]])} at step {bad[0]}",
                fix="give a finite learning rate of at least 0 at each step",
            )
        return rates.reshape(epochs, batches)
    if schedule not in SCHEDULES:
        raise UsageError(f"there is no schedule '{schedule}'", fix=suggestion(schedule, SCHEDULES))
    return (learning_rate * SCHEDULES[schedule](steps / len(steps))).reshape(epochs, batches)
