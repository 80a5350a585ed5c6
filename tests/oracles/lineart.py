"""PyTorch's line extractors, written after their published architectures, under their keys."""

from typing import Any

import torch
from oracles.perturb import perturb_
from torch import Tensor, nn
from torch.nn import functional

from magiccolor_jax.lineart.anime2sketch import Anime2SketchConfig
from magiccolor_jax.lineart.sketch_keras import SketchKerasConfig


def numbered(**layers: nn.Module) -> nn.Sequential:
    """A Sequential of layers under the numbers `_N`; what has no parameters may be left out."""
    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name.removeprefix("_"), layer)
    return made


def oracle_of(config: Any) -> nn.Module:
    """The network of one of our configs, under lively weights."""
    if isinstance(config, Anime2SketchConfig):
        network = anime2sketch(config.width, config.depth, config.enlarging == "bilinear")
    elif isinstance(config, SketchKerasConfig):
        network = SketchKerasOracle(config.width)
    else:
        network = InformativeDrawingsOracle(config.width, config.blocks)
    return lively_(network)


def lively_(network: nn.Module, seed: int = 0) -> nn.Module:
    """Perturbed, and its batch statistics with it."""
    perturb_(network, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, buffer in network.named_buffers():
        noise = torch.rand(buffer.shape, generator=generator)
        if name.endswith("running_mean"):
            buffer.copy_(noise - 0.5)
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + noise)
    return network


class SmoothedUpsampling(nn.Module):
    """What `improved.bin` has in the place of a transposed convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.smooth = nn.Module()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.smooth.register_buffer("kernel", torch.outer(row, row)[None, None])
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.mlp = numbered(
            _0=nn.Conv2d(outputs, 4 * outputs, 1), _2=nn.Conv2d(4 * outputs, outputs, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear")
        channels = x.shape[1]
        kernel = self.smooth.kernel.expand(channels, 1, 3, 3)
        x = functional.conv2d(functional.pad(x, (1,) * 4, "replicate"), kernel, groups=channels)
        x = self.conv(x)
        wide, narrow = self.mlp
        return x + narrow(functional.gelu(wide(x)))


class Anime2SketchLevel(nn.Module):
    """A level around the levels below it."""

    def __init__(self, widths: list[int], bilinear: bool, outside: int | None = None):
        """
        Args:
            widths: channels of this level and of those below.
            outside: channels of the level above; None: this is the first.
        """
        super().__init__()
        inside, *below = widths
        self.first, self.last = outside is None, not below
        inputs, outputs = (3, 1) if outside is None else (outside, outside)
        down = nn.Conv2d(inputs, inside, 4, 2, 1)
        up: nn.Module = nn.ConvTranspose2d(inside * (1 if self.last else 2), outputs, 4, 2, 1)
        if bilinear and not (self.first or self.last):
            up = SmoothedUpsampling(2 * inside, outputs)
        if self.first:
            self.model = numbered(_0=down, _1=Anime2SketchLevel(below, bilinear, inside), _3=up)
        elif self.last:
            self.model = numbered(_1=down, _3=up)
        else:
            inner = Anime2SketchLevel(below, bilinear, inside)
            self.model = numbered(_1=down, _3=inner, _5=up)

    def forward(self, x: Tensor) -> Tensor:
        down, *inner, up = self.model
        if self.first:
            return torch.tanh(up(torch.relu(inner[0](down(x)))))
        y = down(functional.leaky_relu(x, 0.2))
        if inner:
            y = inner[0](functional.instance_norm(y))
        made = functional.instance_norm(up(torch.relu(y)))
        return torch.cat([x, made], 1)


def anime2sketch(width: int, depth: int, bilinear: bool) -> nn.Module:
    """The generator: `model.model.0.weight`, ..."""
    widths = [width * min(2**level, 8) for level in range(depth)]
    return nn.ModuleDict({"model": Anime2SketchLevel(widths, bilinear)})


def run_anime2sketch(network: nn.Module, pixels: Tensor) -> Tensor:
    """[B 3 H W] in [-1, 1] -> [B 1 H W]."""
    return network.get_submodule("model")(pixels)


class SketchKerasOracle(nn.Module):
    """Blocks of padding, convolution, normalisation and ReLU; `model.pth` of the port."""

    def __init__(self, width: int):
        super().__init__()
        w = [width * 2**i for i in range(5)]
        self.downblock_1 = nn.Sequential(*_unit(1, w[0], 3))
        for i in range(3):
            layers = (*_unit(w[i], w[i + 1], 4, 2), *_unit(w[i + 1], w[i + 1], 3))
            self.add_module(f"downblock_{i + 2}", nn.Sequential(*layers))
        self.downblock_5 = nn.Sequential(*_unit(w[3], w[4], 4, 2))
        self.downblock_6 = nn.Sequential(*_unit(w[4], w[4], 3))
        for i in range(4):
            wide, narrow = w[4 - i], w[3 - i]
            layers = (*_unit(2 * wide, wide, 4, around=(1, 2, 1, 2)), *_unit(wide, narrow, 3))
            block = nn.Sequential(nn.Upsample(scale_factor=2), *layers)
            self.add_module(f"upblock_{i + 1}", block)
        self.last_conv = nn.Conv2d(2 * w[0], 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i in range(1, 6):
            x = self.get_submodule(f"downblock_{i}")(x)
            kept.append(x)
        x = self.downblock_6(x)
        for i in range(1, 5):
            x = self.get_submodule(f"upblock_{i}")(torch.cat([kept[5 - i], x], 1))
        x = torch.cat([kept[0], x], 1)
        return self.last_conv(functional.pad(x, (1,) * 4, "reflect"))


def _unit(inputs: int, outputs: int, window: int, stride: int = 1, around=(1, 1, 1, 1)):
    return (
        nn.ReflectionPad2d(around),
        nn.Conv2d(inputs, outputs, window, stride),
        nn.BatchNorm2d(outputs, eps=1e-3),
        nn.ReLU(),
    )


class InformativeBlock(nn.Module):
    """A residual block."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3) for _ in range(2))
        self.conv_block = numbered(
            _0=nn.ReflectionPad2d(1),
            _1=first,
            _2=nn.InstanceNorm2d(width),
            _3=nn.ReLU(),
            _4=nn.ReflectionPad2d(1),
            _5=second,
            _6=nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class InformativeDrawingsOracle(nn.Module):
    """`sk_model.pth`, called `lineart` by ControlNet's annotators."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        one, two, four = width, 2 * width, 4 * width

        def normed(conv: nn.Module, channels: int):
            return conv, nn.InstanceNorm2d(channels), nn.ReLU()

        def up(inputs: int):
            made = nn.ConvTranspose2d(inputs, inputs // 2, 3, 2, 1, output_padding=1)
            return normed(made, inputs // 2)

        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), *normed(nn.Conv2d(3, one, 7), one))
        self.model1 = nn.Sequential(
            *normed(nn.Conv2d(one, two, 3, 2, 1), two), *normed(nn.Conv2d(two, four, 3, 2, 1), four)
        )
        self.model2 = nn.Sequential(*(InformativeBlock(four) for _ in range(blocks)))
        self.model3 = nn.Sequential(*up(four), *up(two))
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(one, 1, 7), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        for number in range(5):
            x = self.get_submodule(f"model{number}")(x)
        return x
