"""VGG-19 as torchvision lays it out: `features.N` counts ReLUs and pools too."""

from oracles.perturb import perturb_
from torch import Tensor, nn

DEPTHS = (2, 2, 4, 4, 4)
"""Convolutions per block of layout E; a max pool ends each."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of RGB in [0, 1]."""

NAMES = tuple(
    f"relu{block}_{i}" for block, depth in enumerate(DEPTHS, 1) for i in range(1, depth + 1)
)


def vgg_oracle(widths: tuple[int, ...]) -> nn.ModuleDict:
    """Perturbed; `widths` are the channels of the five blocks."""
    layers, inputs = [], 3
    for width, depth in zip(widths, DEPTHS, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    vgg = nn.ModuleDict({"features": nn.Sequential(*layers)})
    perturb_(vgg, seed=0)
    return vgg


def activations(vgg: nn.ModuleDict, pixels: Tensor) -> dict[str, Tensor]:
    """The outputs of all ReLUs, in order, for pixels [B 3 H W] in [0, 1]."""
    mean, deviation = (pixels.new_tensor(x).view(3, 1, 1) for x in (MEAN, DEVIATION))
    x, found = (pixels - mean) / deviation, []
    features = vgg["features"]
    assert isinstance(features, nn.Sequential)
    for layer in features:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            found.append(x)
    return dict(zip(NAMES, found, strict=True))
