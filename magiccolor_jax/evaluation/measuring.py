"""Measures pages: pixels and palettes on the host, pictures and networks in batches on devices."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from magiccolor_jax.data.batches import bucket_of
from magiccolor_jax.data.transforms import Picture
from magiccolor_jax.evaluation import quality
from magiccolor_jax.evaluation.judges import Judges, embed, encoder_pixels
from magiccolor_jax.evaluation.known import Known, sees_instances
from magiccolor_jax.evaluation.lines import line_fidelity
from magiccolor_jax.evaluation.methods import exchanged_order
from magiccolor_jax.evaluation.metrics import METRICS, PICTURE, REGION
from magiccolor_jax.evaluation.palettes import (
    distances_of,
    dominant_colors,
    follows,
    inner,
    oklab_error,
    own_closest,
    transport,
)
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.rows import Row
from magiccolor_jax.parallel.mesh import by_case, data_mesh

REGION_PIXELS = ("region_psnr", "region_ssim")

ON_DEVICES = (*PICTURE, *REGION_PIXELS)
"""Metrics that are computed in batches."""

MOST_PSNR = 100.0
"""Decibels that equal pictures count as, so that there is a mean."""


class Page(NamedTuple):
    """A page that is ready to be compared, at the protocol's size."""

    picture: UInt8[np.ndarray, "H W 3"]
    truth: UInt8[np.ndarray, "H W 3"] | None
    regions: Bool[np.ndarray, "K H W"] | None
    """None where no batch looks at them."""
    row: Row
    """What is measured already."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pages of one shape are measured by one program."""
        count = 0 if self.regions is None else bucket_of(len(self.regions))
        return (count, *self.picture.shape)


def measure_on_host(known: Known, picture: Picture, swapped: Picture | None) -> Page:
    """Everything that is not computed in batches; all at the page's own size.

    Args:
        known: checked.
        swapped: the page of the case with its first two references exchanged.
    """
    case, asked = known.case, {*known.protocol.metrics}
    row: Row = {"difficulty": known.difficulty._asdict(), "instances": []}
    if sees_instances(known.protocol):
        row["instances"] = [{"id": number} for number in range(1, len(known.regions) + 1)]
        if asked & {"own", "other", "own_closest"}:
            _note_palettes(row, distances_of(picture, known.regions, known.palettes))
        _note_regions(row["instances"], known, picture, asked)
    if "swapped" in asked and swapped is not None:
        palettes = [known.palettes[i] for i in exchanged_order(len(known.palettes))]
        found = distances_of(swapped, known.regions, palettes)
        seen = ~np.isnan(found[:2, 0])
        row["swapped"] = float(follows(found)[seen].mean()) if seen.any() else None
    if "lines" in asked:
        row["lines"] = line_fidelity(picture, case.sketch)
    regions = known.masks if asked & {*REGION_PIXELS} else None
    return Page(known.at_size(picture), known.truth, regions, row)


def _note_palettes(row: Row, distances: Float[np.ndarray, "K K"]) -> None:
    """The figures of the leakage matrix, which the row keeps whole."""
    row["leakage"] = np.round(distances, 3).tolist()
    closest = own_closest(distances)
    for index, found in enumerate(row["instances"]):
        if np.isnan(distances[index, index]):
            continue
        found["own"] = float(distances[index, index])
        if len(distances) > 1:
            found["other"] = float(np.delete(distances[index], index).mean())
            found["own_closest"] = float(closest[index])


def _note_regions(found: list[Row], known: Known, picture: Picture, asked: set[str]) -> None:
    """How far each region's colours are from the truth's."""
    truth = known.case.target
    if truth is None:
        return
    for instance, region, index in zip(found, known.regions, range(len(found)), strict=True):
        if not region.any():
            continue
        if "oklab_error" in asked:
            instance["oklab_error"] = oklab_error(picture, truth, region)
        if "dominant" in asked:
            theirs = known.dominant[index]
            assert theirs is not None, "of a region that is not empty"
            instance["dominant"] = transport(dominant_colors(picture[inner(region)]), theirs)


class Devices:
    """The metrics that are computed in batches, over all local devices."""

    def __init__(self, protocol: Protocol, judges: Judges):
        self._mesh = data_mesh(jax.local_devices())
        self._metrics = [name for name in protocol.metrics if name in ON_DEVICES]
        self._judges, self._fid = judges, protocol.fid
        self._compare = jax.jit(partial(_compare, tuple(self._metrics)))

    def measure(self, pages: Sequence[Page]) -> tuple[list[Row], Float[np.ndarray, "B D"] | None]:
        """A row per page, and Inception's features where the protocol has FID.

        Args:
            pages: all of one shape.
        """
        count, made = len(pages), self._batch([page.picture for page in pages])
        found: dict[str, Any] = {}
        if self._metrics:
            truth = self._batch([page.truth for page in pages])
            regions = None
            if pages[0].regions is not None:
                regions = self._batch([_padded(page.regions) for page in pages])
            found |= self._compare(made, truth, regions)
            for name in self._metrics:
                judge = METRICS[name].judge
                if judge in ("lpips_alex", "lpips_vgg"):
                    found[name] = _distance(self._judges.networks[judge], made, truth)
                elif judge is not None:
                    found[name] = self._similarity(judge, pages)
        found = {name: np.asarray(values)[:count] for name, values in found.items()}
        features = None
        if self._fid:
            features = np.asarray(_features(self._judges.networks["inception"], made))[:count]
        return [_row(found, index, page) for index, page in enumerate(pages)], features

    def _similarity(self, stem: str, pages: Sequence[Page]) -> Array:
        """Methods share the truth of a case, which is looked at once."""
        network, sizes = self._judges.networks[stem], self._judges.sizes[stem]
        truths = {id(page.truth): page.truth for page in pages if page.truth is not None}
        made, truth = (
            embed(network, self._batch([encoder_pixels(stem, each, sizes) for each in pictures]))
            for pictures in ([page.picture for page in pages], [*truths.values()])
        )
        places = {key: place for place, key in enumerate(truths)}
        own = np.array([places[id(page.truth)] for page in pages])
        return jnp.sum(made[: len(pages)] * truth[own], axis=-1)

    def _batch(self, values: Sequence[Any]) -> Array:
        """Stacked on the devices, the last repeated: a power of two on each, so that few programs
        serve all lengths."""
        each = -(-len(values) // self._mesh.size)
        whole = self._mesh.size * 2 ** (each - 1).bit_length()
        filled = np.stack([*values, *[values[-1]] * (whole - len(values))])
        return jax.device_put(filled, by_case(self._mesh))


def _padded(regions: Bool[np.ndarray, "K H W"] | None) -> Bool[np.ndarray, "N H W"]:
    """Empty regions up to the bucket, so that one program serves several counts."""
    assert regions is not None, "pages of one batch have the same parts"
    missing = bucket_of(len(regions)) - len(regions)
    return np.pad(regions, ((0, missing), (0, 0), (0, 0)))


def _compare(
    names: tuple[str, ...],
    made: UInt8[Array, "B H W 3"],
    truth: UInt8[Array, "B H W 3"],
    regions: Bool[Array, "B K H W"] | None,
) -> dict[str, Float[Array, "B *K"]]:
    """The metrics that take no network."""
    unit = (x.astype(jnp.float32) / 255 for x in (made, truth))
    # Equal pictures differ by nothing; a fused multiplication and subtraction would round once.
    made, truth = lax.optimization_barrier(tuple(unit))
    gaussian, uniform = quality.gaussian_window(), quality.uniform_window()

    def per_region(metric):
        return jax.vmap(metric, in_axes=1, out_axes=1)(regions)

    rules = {
        "psnr": lambda: jnp.minimum(quality.psnr(made, truth), MOST_PSNR),
        "ssim": lambda: quality.ssim(made, truth, gaussian),
        "ssim_uniform": lambda: quality.ssim(made, truth, uniform),
        "ms_ssim": lambda: quality.ms_ssim(made, truth),
        "region_psnr": lambda: jnp.minimum(
            per_region(lambda mask: quality.psnr(made, truth, mask)), MOST_PSNR
        ),
        "region_ssim": lambda: per_region(lambda mask: quality.ssim(made, truth, gaussian, mask)),
    }
    return {name: rules[name]() for name in names if name in rules}


@nnx.jit
def _distance(network: nnx.Module, made: Array, truth: Array) -> Float[Array, "B"]:
    """LPIPS of two batches of 8 bits."""
    pair = (x.astype(jnp.float32) / 255 for x in (made, truth))
    return network(*pair)  # pyright: ignore[reportCallIssue]


@nnx.jit
def _features(network: nnx.Module, pictures: UInt8[Array, "B H W 3"]) -> Float[Array, "B D"]:
    return network(pictures.astype(jnp.float32) / 255)  # pyright: ignore[reportCallIssue]


def _row(found: dict[str, np.ndarray], index: int, page: Page) -> Row:
    """A page's row, whole."""
    row = dict(page.row)
    for name, values in found.items():
        if name in REGION:
            for instance, value in zip(row["instances"], values[index], strict=False):
                instance[name] = float(value)
        else:
            row[name] = float(values[index])
    return row
