"""A nano release and its conversion, made once."""

import pytest
from make_release_checkpoint import Args, main

from converters import ConvertArgs
from converters.run import convert


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A release folder without a .pth or .bin, so that it converts without torch."""
    folder = tmp_path_factory.mktemp("stand-in") / "release"
    main(Args(out=folder, size="nano", containers="safetensors"))
    return folder


@pytest.fixture(scope="session")
def torch_release(tmp_path_factory):
    """A release folder with the original containers, and VGG-19 in torch's legacy format."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("stand-in") / "release"
    main(Args(out=folder, size="nano", vgg19=True))
    return folder


@pytest.fixture(scope="session")
def jax_folder(torch_release, tmp_path_factory):
    """The whole release, converted."""
    folder = tmp_path_factory.mktemp("jax") / "model"
    convert(ConvertArgs(source=torch_release, output=folder))
    return folder
