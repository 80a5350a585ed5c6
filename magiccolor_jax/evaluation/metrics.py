"""The numbers that a report gives: names, units, which way is better, what they mean."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A number per case; of instances, their mean over the page."""

    label: str
    better: Literal["higher", "lower"]
    about: str
    digits: int = 3
    judge: str | None = None
    """Stem of the network that it takes (`judges.JUDGES`)."""


METRICS = {
    "psnr": Metric("PSNR, dB", "higher", "against the truth, whole picture", 2),
    "ssim": Metric("SSIM", "higher", "Gaussian window of 11 px, deviation 1.5"),
    "ssim_uniform": Metric("SSIM, uniform", "higher", "uniform window of 7 px"),
    "ms_ssim": Metric("MS-SSIM", "higher", "five scales"),
    "lpips_alex": Metric("LPIPS (alex)", "lower", "version 0.1", judge="lpips_alex"),
    "lpips_vgg": Metric("LPIPS (vgg)", "lower", "version 0.1", judge="lpips_vgg"),
    "dino": Metric("DINO", "higher", "cosine of DINOv2's class tokens", judge="dinov2"),
    "clip": Metric("CLIP", "higher", "cosine of CLIP's image embeddings", judge="clip_vision"),
    "region_psnr": Metric("PSNR of instances, dB", "higher", "inside each sketch mask", 2),
    "region_ssim": Metric("SSIM of instances", "higher", "windows centred in each sketch mask"),
    "oklab_error": Metric("Oklab error", "lower", "hundredths, to the truth, per pixel", 2),
    "dominant": Metric("dominant colours", "lower", "CIEDE2000 of the transport to the truth's", 2),
    "own": Metric("to own reference", "lower", "hundredths of Oklab, between palettes", 2),
    "other": Metric("to other references", "higher", "hundredths of Oklab, between palettes", 2),
    "own_closest": Metric("own reference closest", "higher", "share of a page's instances"),
    "swapped": Metric(
        "swap test", "higher", "share of two exchanged references that their colours follow"
    ),
    "lines": Metric("line fidelity", "higher", "F1 of the lines found again in the picture"),
}
"""Key in rows, JSON and CSV -> what it is."""

PICTURE = ("psnr", "ssim", "ssim_uniform", "ms_ssim", "lpips_alex", "lpips_vgg", "dino", "clip")
"""Of whole pictures, against the truth."""

REGION = ("region_psnr", "region_ssim", "oklab_error", "dominant")
"""Of instances, against the truth."""

COLOR = ("own", "other", "own_closest", "swapped", "lines")
"""Without the truth."""

INSTANCE = (*REGION, "own", "other", "own_closest")
"""One per instance; a case has their mean."""
