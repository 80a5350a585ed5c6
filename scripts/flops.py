"""FLOPs and bytes per sample of a training step for each choice of losses, checked against PyTorch.

    python scripts/flops.py                                  # full size, 512 px; about half an hour
    python scripts/flops.py --size nano --out runs/flops     # writes flops.json and flops.md too

Nothing is computed: XLA analyses programs made from shapes (`training/cost.py`), PyTorch counts on
its meta device. FLOPs are those of one sample in a step that looks at pictures, and what a step is
expected to cost, as it looks in a share of the steps (`LossConfig.picture_share`).
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from abstract_training import (
    SETTINGS,
    Networks,
    Training,
    floats,
    frozen,
    networks,
    stage_of,
    training,
)
from flops_torch import TorchFlops, TorchNetworks
from report import Row, show, write_json

from magiccolor_jax.data.batches import bucket_of
from magiccolor_jax.losses.objective import Keys, LossConfig
from magiccolor_jax.losses.patches import CELL
from magiccolor_jax.models.controlnet import ControlNet
from magiccolor_jax.models.unet import UNet
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.training.cost import Cost, program_cost, step_cost
from magiccolor_jax.types import LATENT_FACTOR

TOKENS = 77
"""Context of the networks' own comparison, SD1.5's: with a single token ours takes a short cut."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """What a step costs."""

    size: Literal["full", "nano"] = "full"
    """Sizes of the networks and of the page (512 px, 128 px)."""
    cases: tuple[str, ...] = ("1x1", "2x1", "2x10")
    """STAGExINSTANCES; instances are padded to their bucket."""
    compiled: bool = True
    """Bytes of the compiled program; else of one in which nothing is fused, in a tenth of the
    time."""
    out: Path | None = None
    """Folder for flops.json and flops.md."""


def main(args: Args) -> None:
    """Prints the tables."""
    nets = networks(args.size)
    oracle = TorchNetworks(args.size, nets.dinov2, nets.vgg)
    tables: dict[str, list[Row]] = {}

    def add(title: str, rows: list[Row]) -> None:
        tables[title] = rows
        show(title, rows)
        if args.out is not None:  # after each: the whole takes long
            args.out.mkdir(parents=True, exist_ok=True)
            write_json(args.out / "flops.json", tables)
            (args.out / "flops.md").write_text("\n".join(map(markdown, tables, tables.values())))

    add(f"forward pass of each network, {TOKENS} context tokens", checks(nets, oracle))
    for case in args.cases:
        stage, instances = map(int, case.split("x"))
        title = f"stage {stage}, K = {instances} (bucket {bucket_of(instances)}), per sample"
        add(title, settings(nets, oracle, stage, instances, args.compiled))
    for stage in sorted({int(case.split("x")[0]) for case in args.cases}):
        add(f"the optimiser, stage {stage}, per step", [optimiser(nets, stage, args.compiled)])


def checks(nets: Networks, oracle: TorchNetworks) -> list[Row]:
    """Each network alone, ours against PyTorch's."""
    sizes, cfg, read = nets.sizes, nets.trained, frozen(nets)
    page, crop = sizes.page, min(LossConfig().picture_crop, sizes.page)
    side = page // LATENT_FACTOR
    channels = cfg.denoiser.in_channels
    latents, context = floats(1, side, side, channels), floats(1, TOKENS, cfg.denoiser.context)
    canvas, page_patches = floats(1, page, page, 3), page // CELL * sizes.patch
    reference, denoiser = (abstract(UNet, each) for each in (cfg.reference, cfg.denoiser))
    bank = jax.eval_shape(_evaluate, reference, latents, context).features.hidden
    vae, clip, dinov2, vgg = read.encoders.vae, read.encoders.clip, read.dinov2, read.vgg
    assert cfg.instance_guider is not None
    small = floats(1, crop // LATENT_FACTOR, crop // LATENT_FACTOR, channels)
    rows = [
        ("VAE, encoding", (_encode, vae, canvas), oracle.encode(page)),
        (f"VAE, decoding {crop} px", (_decode, vae, small), oracle.decode(crop)),
        ("CLIP vision", (_call, clip, floats(1, sizes.clip, sizes.clip, 3)), oracle.clip()),
    ]
    for pixels in (sizes.reference, page_patches):
        picture = floats(1, pixels, pixels, 3)
        rows.append((f"DINOv2, {pixels} px", (_call, dinov2, picture), oracle.dinov2(pixels)))
    rows += [
        (
            "UNet",
            (_evaluate, denoiser, latents, context),
            oracle.denoiser(page, TOKENS, bank=False),
        ),
        (
            "denoiser, reading the reference",
            (_evaluate, denoiser, latents, context, bank),
            oracle.denoiser(page, TOKENS, bank=True),
        ),
    ]
    for name, guider in (("sketch", cfg.sketch_guider), ("multi", cfg.instance_guider)):
        hint = floats(1, page, page, guider.conditioning_channels)
        ours = (_guide, abstract(ControlNet, guider), latents, context, hint)
        rows.append((f"guider `{name}`, from its hint on", ours, oracle.guider(name, page, TOKENS)))
    rows.append((f"VGG-19, {crop} px", (_call, vgg, floats(1, crop, crop, 3)), oracle.vgg(crop)))
    return [_compared(name, program_cost(*ours), theirs) for name, ours, theirs in rows]


def _compared(name: str, ours: Cost, theirs: TorchFlops) -> Row:
    return {
        "network": name,
        "GFLOP": ours.flops / 1e9,
        "torch GFLOP": theirs.counted / 1e9,
        "ratio": ours.flops / theirs.counted,
        "ratio without padding": ours.flops / theirs.inside,
    }


def _call(module: Any, pixels: Any) -> Any:
    return module(pixels)


def _encode(vae: Any, pixels: Any) -> Any:
    return vae.encode(pixels)


def _decode(vae: Any, latents: Any) -> Any:
    return vae.decode(latents)


def _evaluate(unet: Any, latents: Any, context: Any, bank: Any = None) -> Any:
    return unet(latents, jnp.zeros(1, jnp.int32), unet.project(context, None, bank))


def _guide(guider: Any, latents: Any, context: Any, hint: Any) -> Any:
    caches = guider.project(context)
    return guider(latents, jnp.zeros(1, jnp.int32), guider.embed(hint), caches)


def settings(
    nets: Networks, oracle: TorchNetworks, stage: int, instances: int, compiled: bool
) -> list[Row]:
    """One row per choice of losses: a step that looks at pictures, and the expected one."""
    gradients: dict[str, Cost] = {}
    rows = []
    for name, fields in SETTINGS.items():
        losses = LossConfig(**fields, picture_share=1.0)
        made = training(nets, stage_of(stage), losses, instances=instances)
        started = time.perf_counter()
        ahead, both = (program_cost(*p, compiled=compiled) for p in passes(made))
        seconds = time.perf_counter() - started
        print(f"stage {stage}, K = {instances}, {name}: {seconds:.0f} s", file=sys.stderr)
        gradients[name] = both
        blind = gradients["+ edge weight" if losses.edge else "denoising only"]
        share = LossConfig().picture_share if losses.sees_pictures else 1.0
        theirs = whole_forward(nets, oracle, stage, bucket_of(instances), losses)
        rows.append(
            {
                "losses": name,
                "forward TFLOP": ahead.flops / 1e12,
                "torch TFLOP": theirs / 1e12,
                "ratio": ahead.flops / theirs,
                "with gradient TFLOP": both.flops / 1e12,
                "expected TFLOP": (share * both.flops + (1 - share) * blind.flops) / 1e12,
                "forward GB": ahead.bytes / 1e9,
                "with gradient GB": both.bytes / 1e9,
                "expected GB": (share * both.bytes + (1 - share) * blind.bytes) / 1e9,
            }
        )
    return rows


def passes(made: Training) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The forward pass and the loss with its gradient, each with its operands."""

    def forward(trainable: Any, fixed: Any, frozen: Any, batch: Any, key: Any) -> Any:
        model = made.context.layout.build(fixed | trainable)
        return made.context.loss(model, frozen, batch, Keys.split(key), jnp.zeros(()))

    key = jax.eval_shape(lambda: jax.random.key(0))
    operands = made.state.trainable, made.fixed, made.frozen, made.batch, key
    return (forward, *operands), (jax.value_and_grad(forward, has_aux=True), *operands)


def whole_forward(
    nets: Networks, oracle: TorchNetworks, stage: int, bucket: int, losses: LossConfig
) -> float:
    """FLOPs of the same evaluations in PyTorch, as the release makes them, padding included."""
    sizes, crop = nets.sizes, min(losses.picture_crop, nets.sizes.page)
    page = sizes.page
    found = [
        oracle.encode(page).counted,
        oracle.encode(sizes.canvas).counted,
        oracle.clip().counted,
        bucket * oracle.dinov2(sizes.reference).counted,
        oracle.denoiser(sizes.canvas, 1, bank=False).counted,  # the reference UNet
        oracle.denoiser(page, 1, bank=True).counted,
        oracle.guider("sketch", page, 1).counted,
    ]
    if stage == 2:
        found.append(oracle.guider("multi", page, 1).counted)
    if losses.sees_pictures:
        found.append(oracle.decode(crop).counted)
    if losses.perceptual:
        found.append(2 * oracle.vgg(crop).counted)
    if losses.color:
        found.append(oracle.dinov2(page // CELL * sizes.patch).counted)
    return sum(found)


def optimiser(nets: Networks, stage: int, compiled: bool) -> Row:
    """What a step adds to loss and gradient, whatever the batch: AdamW in f32, no average."""
    losses = LossConfig(**SETTINGS["denoising only"])
    made = training(nets, stage_of(stage), losses, instances=1)
    step = step_cost(*made, compiled=compiled)
    gradient = program_cost(*passes(made)[1], compiled=compiled)
    parameters = sum(leaf.size for leaf in made.state.trainable.values())
    return {
        "trained parameters": f"{parameters / 1e6:.1f} M",
        "GFLOP": (step.flops - gradient.flops) / 1e9,
        "GB": (step.bytes - gradient.bytes) / 1e9,
    }


def markdown(title: str, rows: list[Row]) -> str:
    """A table as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in r.values()] for r in rows]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
