"""Measures pages: pixels and palettes on the host, pictures and networks in batches on devices."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from magiccolor_jax.data.batches import bucket_of
from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.data.transforms import Picture, resize
from magiccolor_jax.evaluation import quality
from magiccolor_jax.evaluation.difficulty import difficulty_of
from magiccolor_jax.evaluation.judges import Judges, embed, encoder_pixels
from magiccolor_jax.evaluation.lines import line_fidelity
from magiccolor_jax.evaluation.methods import exchanged_order
from magiccolor_jax.evaluation.metrics import METRICS, PICTURE, REGION
from magiccolor_jax.evaluation.palettes import (
    dominant_colors,
    inner,
    leakage,
    oklab_error,
    own_closest,
    transport,
)
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.parallel.mesh import by_case, data_mesh
from magiccolor_jax.types import Case

Row = dict[str, Any]

ON_DEVICES = (*PICTURE, "region_psnr", "region_ssim")
"""Metrics that are computed in batches."""


MOST_PSNR = 100.0
"""Decibels that equal pictures count as, so that there is a mean."""


class Page(NamedTuple):
    """A page that is ready to be compared."""

    picture: Picture
    truth: Picture | None
    regions: Bool[np.ndarray, "K H W"]
    """Sketch masks at the protocol's size."""
    row: Row
    """What is measured already."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pages of one shape are measured by one program."""
        return (bucket_of(len(self.regions)), *self.picture.shape)


def measure_on_host(
    case: Case, picture: Picture, swapped: Picture | None, protocol: Protocol
) -> Page:
    """Everything that is not computed in batches; all at the page's own size.

    Args:
        swapped: the page of the case with its first two references exchanged.

    Raises:
        ValueError: a metric compares with the truth, and the case has none.
    """
    _check_truth(case, protocol)
    regions = [mask > MASK_MIDDLE for mask in case.sketch_masks]
    row: Row = {"difficulty": difficulty_of(regions)._asdict(), "instances": _instances(case)}
    asked = set(protocol.metrics)
    if asked & {"own", "other", "own_closest"}:
        _note_palettes(row, leakage(picture, case))
    for index, region in enumerate(regions):
        found = row["instances"][index]
        if "oklab_error" in asked:
            found["oklab_error"] = oklab_error(picture, _truth(case), region)
        if "dominant" in asked:
            pair = (dominant_colors(each[inner(region)]) for each in (picture, _truth(case)))
            found["dominant"] = transport(*pair)
    if "swapped" in asked and swapped is not None:
        order = exchanged_order(len(regions))
        row["swapped"] = float(own_closest(leakage(swapped, case, order))[:2].mean())
    if "lines" in asked:
        row["lines"] = line_fidelity(picture, case.sketch)
    return Page(
        _squared(picture, protocol.size),
        None if case.target is None else _squared(case.target, protocol.size),
        np.stack([_squared_mask(region, protocol.size) for region in regions]),
        row,
    )


def _truth(case: Case) -> Picture:
    assert case.target is not None, "checked before"
    return case.target


def _check_truth(case: Case, protocol: Protocol) -> None:
    needed = [name for name in protocol.metrics if name in (*PICTURE, *REGION)]
    if case.target is None and needed:
        raise ValueError(
            f"{case.path}: the protocol {protocol.name!r} compares with the truth "
            f"({', '.join(needed)}): expected target.* in the case, got none; add it, or "
            "choose a protocol without these numbers"
        )
    if len(case.sketch_masks) != len(case.references):
        raise ValueError(
            f"{case.path}: instances are measured inside their sketch masks: expected one for each "
            f"of {len(case.references)} references, got {len(case.sketch_masks)}; use the layout "
            "with sketch_masks/"
        )


def _instances(case: Case) -> list[Row]:
    return [{"id": number} for number in range(1, len(case.sketch_masks) + 1)]


def _note_palettes(row: Row, distances: Float[np.ndarray, "K K"]) -> None:
    """The figures of the leakage matrix, which the row keeps whole."""
    row["leakage"] = np.round(distances, 3).tolist()
    closest = own_closest(distances)
    for index, found in enumerate(row["instances"]):
        found["own"] = float(distances[index, index])
        if len(distances) > 1:
            found["other"] = float(np.delete(distances[index], index).mean())
            found["own_closest"] = float(closest[index])


def _squared(picture: Picture, side: int | None) -> UInt8[np.ndarray, "h w 3"]:
    if side is None or picture.shape[:2] == (side, side):
        return picture
    return np.rint(resize(picture, side, side)).astype(np.uint8)


def _squared_mask(region: Bool[np.ndarray, "H W"], side: int | None) -> Bool[np.ndarray, "h w"]:
    if side is None:
        return region
    return cv2.resize(region.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0


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
            pages: all of one size.
        """
        count, made = len(pages), self._batch([page.picture for page in pages])
        found: dict[str, Any] = {}
        if self._metrics:
            truth = self._batch([page.truth for page in pages])
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
        network, sizes = self._judges.networks[stem], self._judges.sizes
        sides = [
            self._batch([encoder_pixels(stem, picture, sizes) for picture in pictures])
            for pictures in zip(*((page.picture, page.truth) for page in pages), strict=True)
        ]
        made, truth = (embed(network, pixels) for pixels in sides)
        return jnp.sum(made * truth, axis=-1)

    def _batch(self, values: Sequence[Any]) -> Array:
        """Stacked on the devices; the last is repeated until every device has as many."""
        short = -len(values) % self._mesh.size
        return jax.device_put(np.stack([*values, *[values[-1]] * short]), by_case(self._mesh))


def _padded(regions: Bool[np.ndarray, "K H W"]) -> Bool[np.ndarray, "N H W"]:
    """Empty regions up to the bucket, so that one program serves several counts."""
    missing = bucket_of(len(regions)) - len(regions)
    return np.pad(regions, ((0, missing), (0, 0), (0, 0)))


def _compare(
    names: tuple[str, ...],
    made: UInt8[Array, "B H W 3"],
    truth: UInt8[Array, "B H W 3"],
    regions: Bool[Array, "B K H W"],
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
