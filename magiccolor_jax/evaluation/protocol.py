"""How methods are compared: which numbers, at what size, from which seeds."""

from dataclasses import dataclass

from magiccolor_jax import presets
from magiccolor_jax.evaluation.metrics import METRICS
from magiccolor_jax.sampling.colorizer import Settings

PROTOCOLS = presets.CONFIGS / "eval"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured, and everything that the result depends on besides the pictures."""

    name: str
    """In the report."""
    metrics: tuple[str, ...]
    """Keys of `metrics.METRICS`, in the report's order."""
    size: int | None = 512
    """Pictures and masks are stretched to squares of this side before they are compared, as the
    field does; None: each at its page's own size."""
    fid: bool = False
    """Fréchet distance of Inception's features, method against truth."""
    cases: int | None = None
    """How many cases are drawn, by the seed; None: all."""
    settings: Settings | None = None
    """How a model samples; None: as it suits it."""
    resamples: int = 2000
    """Of the cases, for intervals."""
    seed: int = 0
    """Of the draw and of the resamples."""

    def __post_init__(self):
        if not self.metrics:
            raise ValueError("Protocol: metrics must name at least one number, got none")
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or len(set(self.metrics)) != len(self.metrics):
            raise ValueError(
                f"Protocol: metrics must be different ones of {', '.join(METRICS)}; got "
                f"{', '.join(unknown) or 'one twice'}"
            )
        for name, least in (("size", 32), ("cases", 1), ("resamples", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Protocol: {name} must be at least {least}, got {value}")

    @property
    def judges(self) -> tuple[str, ...]:
        """Stems of the networks that it takes."""
        wanted = [METRICS[name].judge for name in self.metrics]
        found = [judge for judge in wanted if judge is not None]
        return tuple(dict.fromkeys([*found, *(["inception"] if self.fid else [])]))


def load_protocol(name: str) -> Protocol:
    """A protocol by its name or by the path of a file that defines PROTOCOL.

    Raises:
        ValueError: no such protocol, or the file defines none.
    """
    return presets.load(name, PROTOCOLS, "protocol", "PROTOCOL", Protocol, "Protocol(...)")


def protocol_names() -> list[str]:
    """Names of the protocols that came with the package."""
    return presets.names_in(PROTOCOLS)
