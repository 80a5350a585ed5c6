"""One optimiser step: a pure function from state and batch to state and metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from magiccolor_jax.losses.objective import Keys
from magiccolor_jax.training.parameters import Layout, Parameters

Metrics = dict[str, Float[Array, ""]]

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
    gradient, metrics = step_gradient(
        context, fixed, frozen, state.trainable, state.step, batch, key
    )
    state, norm = step_update(context, state, gradient)
    return state, metrics | {"grad_norm": norm}


def step_gradient(
    context: StepContext,
    fixed: Parameters,
    frozen: Any,
    trainable: Parameters,
    step: Int[Array, ""],
    batch: Any,
    key: Array,
) -> tuple[Parameters, Metrics]:
    """First half of `train_step`: the gradient (f32), and the loss' terms.

    Args:
        trainable, step: of the state; the others are as there.
    """
    progress = step / context.steps

    def loss(trainable: Parameters, part: Any, keys: Keys):
        model = context.layout.build(fixed | trainable)
        return context.loss(model, frozen, part, keys, progress)

    step_key = jax.random.fold_in(key, step)
    return _gradient(loss, trainable, batch, step_key, context.accumulate)


def step_update(
    context: StepContext, state: TrainState, gradient: Parameters
) -> tuple[TrainState, Float[Array, ""]]:
    """Second half of `train_step`: the next state, and the norm of the gradient."""
    updates, optimizer = context.optimizer.update(gradient, state.optimizer, state.trainable)
    trainable = cast(Parameters, optax.apply_updates(state.trainable, updates))
    average = state.average
    if average is not None:
        assert context.average_decay is not None, "an average has a decay"
        decay = jnp.minimum(context.average_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda x, y: decay * x + (1 - decay) * y, average, trainable)
    norm = optax.tree.norm(gradient)
    return TrainState(state.step + 1, trainable, optimizer, average), norm


def _gradient(loss, trainable, batch, key, parts: int) -> tuple[Parameters, Metrics]:
    """Gradient (f32) and metrics of the mean over all parts of a batch."""
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (_, metrics), gradient = differentiate(trainable, batch, Keys.split(key))
        return _wide(gradient), metrics
    # Sample i goes to part i mod parts, so that every device keeps its samples.
    cut = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def add(total, part):
        piece, number = part
        keys = Keys.split(jax.random.fold_in(key, number))
        (_, metrics), gradient = differentiate(trainable, piece, keys)
        found = _wide(gradient), metrics
        return jax.tree.map(lambda x, y: x + y / parts, total, found), None

    shapes = jax.eval_shape(
        lambda: differentiate(trainable, jax.tree.map(lambda x: x[0], cut), Keys.split(key))
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (shapes[1], shapes[0][1]))
    (gradient, metrics), _ = lax.scan(add, zeros, (cut, jnp.arange(parts)))
    return gradient, metrics
