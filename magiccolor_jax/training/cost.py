"""What a training step costs: XLA's own analysis of the program, from shapes alone.

Model FLOPs, as model FLOPs utilisation wants them: what the step has to compute, whatever the
device, remat and accumulation make of it. (Hardware FLOPs would count what remat computes again.)
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax

from magiccolor_jax.losses.objective import Objective
from magiccolor_jax.nn.plain import plain_programs
from magiccolor_jax.training.step import Loss, StepContext, train_step

FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""The program is not run: machine code may be bad. XLA's own passes, fusion among them, are run."""

PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    # cloud.google.com/tpu/docs: v4, v5e, v5p, v6e, "peak compute per chip (bf16)".
    (r"TPU v4", 275e12),
    (r"TPU v5( ?lite|e)", 197e12),
    (r"TPU v5p?", 459e12),
    (r"TPU v6( ?lite|e)", 918e12),
    # NVIDIA's data sheets, BFLOAT16 tensor core; where they give it "with sparsity", half of it.
    (r"NVIDIA A100.*", 312e12),
    (r"NVIDIA H100 PCIe.*", 756e12),
    (r"NVIDIA H100 NVL.*", 835e12),
    (r"NVIDIA (H100|H200|GH200).*", 989e12),
    (r"NVIDIA B200.*", 2250e12),
    (r"NVIDIA L40S.*", 362e12),
    (r"NVIDIA L4", 121e12),
)
"""Regex over jax's `device_kind` -> dense bf16 operations per second of one jax device; the first
full match counts."""


class Cost(NamedTuple):
    """Of one run of a program."""

    flops: float
    """Floating-point operations; a multiplication and its addition are two. Products with a
    convolution's padding are none; additions and the like of single elements count."""
    bytes: float
    """Read and written by the program's operations, each on its own: with fusion when compiled."""


def program_cost(function: Callable[..., Any], *args: Any, compiled: bool = False) -> Cost:
    """Cost of `function(*args)` as a program without loops, kernels and remat.

    Without `compiled` XLA analyses the program as it was traced: seconds instead of a minute, and
    the same FLOPs to 0.2 %, but the bytes of a program in which nothing is fused. The branches of a
    `lax.cond` count as the dearer one. Nothing is allocated or run, on any device.

    Args:
        function: traced anew.
        args: arrays or their shapes, and trees of them.
        compiled: analyse what XLA makes of it, for CPU.

    Raises:
        RuntimeError: JAX has no CPU backend (JAX_PLATFORMS); other backends cannot analyse.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    with jax.default_device(jax.local_devices(backend="cpu")[0]), plain_programs():
        program = jax.jit(lambda *operands: function(*operands)).lower(*shapes)
        stage = program.compile(compiler_options=FAST_COMPILATION) if compiled else program
    found: Any = stage.cost_analysis()
    return Cost(found.get("flops", 0.0), found.get("bytes accessed", 0.0))


def step_cost(
    context: StepContext,
    fixed: Any,
    frozen: Any,
    state: Any,
    batch: Any,
    *,
    compiled: bool = False,
) -> Cost:
    """Expected cost of one optimiser step: of one that looks at pictures, and of one that does not,
    by `picture_share`.

    Args:
        fixed, frozen, state, batch: as `train_step` takes them, or their shapes; a global batch
            gives the cost of all devices together.
        compiled: as in `program_cost`.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    flops = bytes_moved = 0.0
    for share, loss in _kinds_of_step(context.loss):
        step = partial(train_step, replace(context, loss=loss, accumulate=1))
        cost = program_cost(step, fixed, frozen, state, batch, key, compiled=compiled)
        flops, bytes_moved = flops + share * cost.flops, bytes_moved + share * cost.bytes
    return Cost(flops, bytes_moved)


def _kinds_of_step(loss: Loss) -> list[tuple[float, Loss]]:
    """Losses without chance, and the share of the steps that each is computed in."""
    if not isinstance(loss, Objective) or not loss.cfg.sees_pictures:
        return [(1.0, loss)]
    share = loss.cfg.picture_share
    looks = replace(loss.cfg, picture_share=1.0)
    blind = replace(loss.cfg, perceptual=0.0, color=0.0)
    kinds = ((share, looks), (1 - share, blind))
    return [(p, type(loss)(cfg, loss.recipe, loss.schedule)) for p, cfg in kinds if p]


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 operations per second of a device, None where it is not known (and on CPU).

    Args:
        device_kind: `jax.devices()[0].device_kind`.
    """
    for pattern, peak in PEAK_FLOPS:
        if re.fullmatch(pattern, device_kind):
            return peak
    return None
