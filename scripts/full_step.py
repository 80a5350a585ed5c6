"""One real optimiser step of stage 2 at the released sizes: does it fit, and how large does it get?

    python scripts/full_step.py --json full_step.json

All four trained networks (2.4 billion parameters) in bfloat16, Adafactor, remat, no average: what a
machine of 24 GB needs. Weights and batch are random. Prints the peak of the process' memory, the
compiler's own account, and how many parameters moved.

The compiler takes more memory than the step and does not give all of it back, so another process
compiles first, and this one finds the program in the cache.
"""

import dataclasses
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tyro
from abstract_training import Size, batch, frozen, networks
from report import run_python, show, write_json

from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.parallel.sharding import train_mesh
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.program import Design, Program, begin
from magiccolor_jax.training.reports import memory_gb
from magiccolor_jax.training.stages import stage2

PEEK = 64
"""Numbers of each parameter that are compared before and after."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """One full-size step."""

    size: Size = "full"
    """`nano` and `mid` try the script out."""
    page: int = 256
    """Side of page and canvas in pixels."""
    instances: int = 2
    """References."""
    cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where the compiled program is kept."""
    only_compile: bool = False
    """Stop before the step."""
    json: Path | None = None
    """Where the figures go."""


def main(args: Args) -> None:
    """Builds, compiles, steps, and compares."""
    if not args.only_compile:
        run_python(__file__, *sys.argv[1:], "--only-compile")
    jax.config.update("jax_compilation_cache_dir", str(args.cache.expanduser()))
    nets = networks(args.size)
    sizes = nets.sizes._replace(page=args.page, canvas=args.page)
    nets = dataclasses.replace(nets, sizes=sizes, **_stored_small(nets))
    design = Design(_config(args), nets.trained, Schedule.sd15(), train_mesh((1, 1, 1)))
    values = {path: _draw(path, leaf) for path, leaf in design.parameters.items()}
    before = {path: np.asarray(x.reshape(-1)[:PEEK]) for path, x in values.items()}
    fixed = {path: values.pop(path) for path in design.fixed}
    program = Program(design, fixed, _fill(frozen(nets)))
    state = begin(design, values)
    del values
    figures: dict[str, Any] = {"memory before the step, GB": memory_gb()}
    given = program.put(_fill(batch(nets, 1, args.instances)))
    started = time.perf_counter()
    compiled = program.compile(state, given)
    figures["tracing and loading, s"] = time.perf_counter() - started
    figures |= _account(compiled)
    if args.only_compile:
        print(f"compiled in {time.perf_counter() - started:.0f} s, peak {memory_gb():.1f} GB")
        return
    started = time.perf_counter()
    made = compiled(program.constants, state, given, program.key)
    state, metrics = jax.block_until_ready(made)
    figures["step, s"] = time.perf_counter() - started
    figures["peak of the process, GB"] = memory_gb()
    figures |= {name: float(value) for name, value in metrics.items()}
    figures |= moved(before, state.trainable)
    rows = [{"figure": name, "value": value} for name, value in figures.items()]
    show(f"one step of stage 2, {args.size} size, {args.page} px", rows)
    write_json(args.json, rows)


def _config(args: Args) -> TrainConfig:
    losses = LossConfig(picture_share=1.0, picture_below=1.0, picture_crop=args.page // 2)
    return TrainConfig(
        out=Path("unused"),
        init=Path("unused"),
        stage=dataclasses.replace(stage2(), losses=losses),
        batch=1,
        steps=1,
        # bfloat16 cannot hold updates of 2e-5; this shows that every network moves.
        optim=OptimConfig(kind="adafactor", lr=1e-2, warmup=0),
        average=None,
        parameters="bfloat16",
        precision="float32",
        remat="full",
    )


def _stored_small(nets: Any) -> dict[str, Any]:
    """The frozen networks' parameters in bfloat16, the autoencoder with remat."""
    names = ("vae", "clip", "dinov2", "vgg")
    made = {
        name: dataclasses.replace(getattr(nets, name), param_dtype=jnp.bfloat16) for name in names
    }
    return made | {"vae": dataclasses.replace(made["vae"], remat="full")}


def _draw(path: str, leaf: Any) -> jax.Array:
    """A lively parameter, made on the host in its own type: nothing wider is ever held whole."""
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    shape = leaf.shape
    spread = 0.02 if len(shape) == 1 else float(np.prod(shape[:-1])) ** -0.5
    centre = 1.0 if path.endswith("scale") else 0.0
    noise = rng.standard_normal(shape, np.float32)
    return jnp.asarray((centre + spread * noise).astype(ml_dtypes.bfloat16)).astype(leaf.dtype)


def _fill(tree: Any) -> Any:
    """Random values in the shapes of a tree; modules keep their structure."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [_value(i, leaf) for i, leaf in enumerate(leaves)])


def _value(index: int, leaf: Any) -> Any:
    rng, shape = np.random.default_rng(index), leaf.shape
    if leaf.dtype == jnp.bool_:
        return np.ones(shape, bool)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return np.ones(shape, leaf.dtype)
    spread = 0.5 if len(shape) != 1 else 0.1
    if len(shape) in (2, 4) and shape[0] != 1:
        spread = float(np.prod(shape[:-1])) ** -0.5
    return (spread * rng.standard_normal(shape, np.float32)).astype(leaf.dtype)


def _account(compiled: Any) -> dict[str, float]:
    """What XLA says that the step takes."""
    found = compiled.memory_analysis()
    return {
        "arguments, GB": found.argument_size_in_bytes / 1e9,
        "temporaries, GB": found.temp_size_in_bytes / 1e9,
    }


def moved(before: dict[str, np.ndarray], after: Parameters) -> dict[str, str]:
    """Per network how many of its trained tensors changed."""
    counts: dict[str, list[int]] = {}
    for path, value in after.items():
        changed = not np.array_equal(before[path], np.asarray(value.reshape(-1)[:PEEK]))
        row = counts.setdefault(path.split("/", 1)[0], [0, 0])
        row[0] += changed
        row[1] += 1
    return {f"{name} moved": f"{a} of {b} tensors" for name, (a, b) in counts.items()}


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
