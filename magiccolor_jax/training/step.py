"""One optimiser step: a pure function from state and batch to state and metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from magiccolor_jax.losses.objective import Keys
from magiccolor_jax.training.parameters import Layout, Parameters

Metrics = dict[str, Float[Array, ""]]

Total = tuple[Parameters, Metrics]
"""Gradient (f32) and metrics."""

Loss = Callable[[Any, Any, Any, Keys, Array], tuple[Array, Metrics]]
"""`losses.objective.Objective`, or another function like it, of whatever model and batch."""


class TrainState(NamedTuple):
    """Everything that a step changes."""

    step: Int[Array, ""]
    """Finished steps."""
    trainable: Parameters
    """f32 masters (or the type that they were loaded in)."""
    optimizer: optax.OptState
    average: Parameters | None
    """Exponential moving average of `trainable`, f32; None: none is kept."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What stays the same over a training."""

    layout: Layout
    """Of the `MagicColor` that is trained."""
    loss: Loss
    """What is minimised."""
    optimizer: optax.GradientTransformation
    """From `optim.make_optimizer`."""
    steps: int
    """Length of the training; the edge weight ramps over it."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after another, to save memory."""
    average_decay: float | None = None
    """Of the moving average; early steps use (1 + step) / (10 + step) where that is less."""


def first_state(context: StepContext, trainable: Parameters) -> TrainState:
    """The state before the first step."""
    return TrainState(
        jnp.zeros((), jnp.int32),
        trainable,
        context.optimizer.init(_wide(trainable)),
        None if context.average_decay is None else _wide(trainable),
    )


def _wide(parameters: Parameters) -> Parameters:
    """In f32: what bf16 cannot hold are a slow average's moves, a second moment, a norm's sum."""
    return {path: value.astype(jnp.float32) for path, value in parameters.items()}


def train_step(
    context: StepContext,
    fixed: Parameters,
    frozen: Any,
    state: TrainState,
    batch: Any,
    key: Array,
) -> tuple[TrainState, Metrics]:
    """One step.

    Args:
        fixed: parameters of the model that this stage does not train.
        frozen: what the loss reads beside the model: a `Frozen`, for `Objective`.
        batch: arrays that begin with the batch's axis: a `TrainingBatch`, for `Objective`.
        key: of the whole training; the step's own is folded in.
    """
    given = fixed, frozen, state.trainable, state.step, batch, key
    if context.accumulate == 1:
        gradient, metrics = _of_part(context, *given, 0)
    else:

        def add(total: Total, number: Array) -> tuple[Total, None]:
            return add_part(context, total, *given, number), None

        total = no_part(context, *given)
        (gradient, metrics), _ = lax.scan(add, total, jnp.arange(context.accumulate))
    state, norm = step_update(context, state, gradient)
    return state, metrics | {"grad_norm": norm}


def no_part(context: StepContext, *given: Any) -> Total:
    """Zeros, which `add_part` adds to.

    Args:
        given: as `add_part` takes them, but for the part's number.
    """
    shapes = jax.eval_shape(partial(_of_part, context), *given, 0)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)


def add_part(
    context: StepContext,
    total: Total,
    fixed: Parameters,
    frozen: Any,
    trainable: Parameters,
    step: Int[Array, ""],
    batch: Any,
    key: Array,
    number: Int[Array, ""],
) -> Total:
    """A part of `train_step` before the update: adds one part's share to a batch's mean.

    Args:
        trainable, step: of the state.
        fixed, frozen, batch, key: as `train_step` takes them.
        number: of the part, below `context.accumulate`.
    """
    found = _of_part(context, fixed, frozen, trainable, step, batch, key, number)
    return jax.tree.map(lambda x, y: x + y / context.accumulate, total, found)


def _of_part(context, fixed, frozen, trainable, step, batch, key, number) -> Total:
    """Gradient and metrics of one of `context.accumulate` parts of a batch."""
    parts, step_key = context.accumulate, jax.random.fold_in(key, step)
    if parts > 1:
        step_key = jax.random.fold_in(step_key, number)
        # Sample i goes to part i mod parts, so that every device keeps its samples.
        batch = jax.tree.map(
            lambda x: lax.dynamic_index_in_dim(
                x.reshape(-1, parts, *x.shape[1:]), number, 1, keepdims=False
            ),
            batch,
        )

    def loss(trainable: Parameters, keys: Keys):
        model = context.layout.build(fixed | trainable)
        return context.loss(model, frozen, batch, keys, step / context.steps)

    differentiate = jax.value_and_grad(loss, has_aux=True)
    (_, metrics), gradient = differentiate(trainable, Keys.split(step_key))
    return _wide(gradient), metrics


def step_update(
    context: StepContext, state: TrainState, gradient: Parameters
) -> tuple[TrainState, Float[Array, ""]]:
    """The rest of `train_step`: the next state, and the norm of the gradient."""
    updates, optimizer = context.optimizer.update(gradient, state.optimizer, state.trainable)
    trainable = cast(Parameters, optax.apply_updates(state.trainable, updates))
    average = state.average
    if average is not None:
        assert context.average_decay is not None, "an average has a decay"
        decay = jnp.minimum(context.average_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda x, y: decay * x + (1 - decay) * y, average, trainable)
    norm = optax.tree.norm(gradient)
    return TrainState(state.step + 1, trainable, optimizer, average), norm
