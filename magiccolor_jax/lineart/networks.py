"""The methods that are networks, by name: what makes one of a network, and whence that comes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from magiccolor_jax.lineart.anime2sketch import Anime2SketchMethod
from magiccolor_jax.lineart.informative_drawings import InformativeDrawingsMethod
from magiccolor_jax.lineart.method import Method
from magiccolor_jax.lineart.sketch_keras import SketchKerasMethod

ANNOTATORS = "https://huggingface.co/lllyasviel/Annotators/resolve/main"


class Drawer(NamedTuple):
    """A network that draws lines."""

    kind: str
    """As in `checkpoint.KINDS`, and its file's name in a model folder."""
    method: Callable[..., Method]
    """Of the network, and the side at which it sees pictures."""
    file: str
    """What its authors call it."""
    url: str
    """Where they publish it."""

    def __call__(self, network: Any, side: int | None) -> Method:
        """The method.

        Raises:
            ValueError: the network cannot see pictures of that side.
        """
        return self.method(network) if side is None else self.method(network, side)


NETWORKS = {
    "anime2sketch": Drawer(
        "anime2sketch", Anime2SketchMethod, "netG.pth", f"{ANNOTATORS}/netG.pth"
    ),
    "sketch-keras": Drawer(
        "sketch_keras",
        SketchKerasMethod,
        "model.pth",
        "https://github.com/higumax/sketchKeras-pytorch",
    ),
    "informative-drawings": Drawer(
        "informative_drawings",
        InformativeDrawingsMethod,
        "sk_model.pth",
        f"{ANNOTATORS}/sk_model.pth",
    ),
}
"""By the name that `--method` has."""
