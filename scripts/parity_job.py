"""What both sides of scripts/parity.py are told, and where they leave their outputs."""

import json
from dataclasses import dataclass
from pathlib import Path

from random_inputs import Page, page_name, parse_page

from magiccolor_jax.checkpoint import ModelConfig, read_config

PER_PAGE = ("reference", "sketch_guider", "instance_guider", "denoiser", "vae", "vgg19")
"""Networks whose input has the page's size; the denoiser reads what PyTorch left of the others."""
FIXED_SIZE = ("clip_vision", "clip_text", "text_encoder", "dinov2")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One whole guided sample."""

    page: Page
    steps: int
    matching: str
    """Recipe field `color_matching`: off or release."""

    @classmethod
    def parse(cls, text: str) -> "Sample":
        """Reads `HEIGHTxWIDTH:STEPS:MATCHING`.

        Raises:
            ValueError: it is not that.
        """
        fields = text.split(":")
        if len(fields) != 3 or not fields[1].isdigit() or fields[2] not in ("off", "release"):
            raise ValueError(f"sample: expected HEIGHTxWIDTH:STEPS:off|release, got {text!r}")
        return cls(page=parse_page(fields[0]), steps=int(fields[1]), matching=fields[2])

    def __str__(self) -> str:
        return f"{page_name(self.page)}:{self.steps}:{self.matching}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a side needs to know."""

    release: Path
    model: Path
    work: Path
    pages: tuple[Page, ...]
    samples: tuple[Sample, ...]
    scale: float

    @property
    def config(self) -> ModelConfig:
        """Sizes of every network."""
        return read_config(self.model)

    @property
    def networks(self) -> list[tuple[str, Page]]:
        """Network and page of every comparison; each network's pages are next to each other."""
        fixed = [(name, self.pages[0]) for name in FIXED_SIZE]
        return fixed + [(name, page) for name in PER_PAGE for page in self.pages]

    def inputs(self, page: Page) -> Path:
        """The networks' inputs."""
        return self.work / f"inputs-{page_name(page)}.safetensors"

    def case(self, page: Page) -> Path:
        """A sample's inputs."""
        return self.work / f"case-{page_name(page)}.safetensors"

    def output(self, side: str, network: str, page: Page) -> Path:
        """A network's outputs."""
        return self.work / side / f"{network}-{page_name(page)}.safetensors"

    def sampled(self, side: str, sample: Sample) -> Path:
        """A sample's outputs."""
        return self.work / side / f"sample-{str(sample).replace(':', '-')}.safetensors"

    @property
    def vgg19_weights(self) -> Path:
        """torchvision's file, which is no part of the release."""
        return self.work / "vgg19-random.pth"

    @property
    def vgg19_model(self) -> Path:
        """The same, converted."""
        return self.work / "vgg19"

    def write(self) -> Path:
        """Writes the job into its work folder."""
        path = self.work / "job.json"
        fields = {name: str(getattr(self, name)) for name in ("release", "model", "work")}
        content = fields | {
            "pages": list(map(page_name, self.pages)),
            "samples": list(map(str, self.samples)),
            "scale": self.scale,
        }
        path.write_text(json.dumps(content))
        return path


def read_job(path: str) -> Job:
    """Reads what `Job.write` wrote."""
    content = json.loads(Path(path).read_text())
    folders = {name: Path(content[name]) for name in ("release", "model", "work")}
    return Job(
        **folders,
        pages=tuple(map(parse_page, content["pages"])),
        samples=tuple(map(Sample.parse, content["samples"])),
        scale=content["scale"],
    )
