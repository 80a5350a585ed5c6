"""The networks that judge pictures: their official files to JAX and back."""

from pathlib import Path

import numpy as np
import pytest
from golden_weights import seeded

torch = pytest.importorskip("torch")

from converters.command import ConvertArgs, main  # noqa: E402
from converters.metrics import plan_metrics  # noqa: E402
from magiccolor_jax.checkpoint import load_network, read_config  # noqa: E402
from magiccolor_jax.encoders.inception import InceptionConfig  # noqa: E402
from magiccolor_jax.encoders.lpips import BACKBONES, LPIPSConfig  # noqa: E402
from magiccolor_jax.evaluation.judges import load_judges  # noqa: E402

pytestmark = pytest.mark.torch

FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""torchvision's names."""

HIDDEN = {"alex": (1, 4, 6), "vgg": (0, 3, 6)}
"""torchvision's numbers of the classifier's layers."""

WIDTHS = (4, 6, 8, 10, 12)

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"


def backbone_shapes(name, widths):
    """Key -> shape of torchvision's file."""
    shapes, inputs = {}, 3
    for width, block in zip(widths, BACKBONES[name], strict=True):
        for conv in block.convs:
            shapes[f"features.{conv.index}.weight"] = (width, inputs, conv.window, conv.window)
            shapes[f"features.{conv.index}.bias"] = (width,)
            inputs = width
    for number in HIDDEN[name]:
        shapes |= {f"classifier.{number}.weight": (2, 2), f"classifier.{number}.bias": (2,)}
    return shapes


def head_shapes(widths):
    return {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(widths)}


def save(path, shapes, **how):
    tensors = {key: torch.from_numpy(seeded(key, shape)) for key, shape in shapes.items()}
    torch.save(tensors, path, **how)
    return tensors


@pytest.fixture
def downloads(tmp_path):
    """LPIPS' four files, narrow; torchvision's are of torch.save's old format."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name, file in FILES.items():
        shapes = backbone_shapes(name, WIDTHS)
        save(folder / file, shapes, _use_new_zipfile_serialization=False)
        save(folder / f"{name}.pth", head_shapes(WIDTHS))
    return folder


def convert(source, output, **options):
    return main(ConvertArgs(source=source, output=output, **options))


def test_to_jax_and_back(downloads, tmp_path, capsys):
    assert convert(downloads, tmp_path / "jax") == 0
    assert "no inception: it is made from https://" in capsys.readouterr().out
    config = read_config(tmp_path / "jax")
    assert config.networks["lpips_vgg"] == LPIPSConfig.vgg(widths=WIDTHS)
    network = load_network(tmp_path / "jax", "lpips_alex", config.networks["lpips_alex"])
    stored = torch.load(downloads / "alex.pth", weights_only=True)["lin3.model.1.weight"]
    np.testing.assert_array_equal(network.lin3.kernel[...][:, 0], stored[0, :, 0, 0])
    assert convert(tmp_path / "jax", tmp_path / "back") == 0
    for path in downloads.iterdir():
        ours, theirs = (
            torch.load(folder / path.name, weights_only=True)
            for folder in (tmp_path / "back", downloads)
        )
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_official_widths_are_told_by_the_shapes(tmp_path):
    for name, config in (("alex", LPIPSConfig.alex()), ("vgg", LPIPSConfig.vgg())):
        assert config.widths == plan_widths(tmp_path / name, name, config.widths)


def plan_widths(folder, name, widths):
    """What a plan makes of files that hold shapes and no numbers worth the name."""
    folder.mkdir()
    for file, shapes in (
        (FILES[name], backbone_shapes(name, widths)),
        (f"{name}.pth", head_shapes(widths)),
    ):
        torch.save({key: torch.empty(shape) for key, shape in shapes.items()}, folder / file)
    return plan_metrics(folder).model.networks[f"lpips_{name}"].widths


def test_inception_alone_and_in_its_folder(tmp_path):
    with np.load(Path(__file__).parents[1] / "golden" / "inception.npz") as golden:
        names = [line.partition(" ") for line in golden["names"]]
    shapes = {key: tuple(map(int, filter(None, dims.split(",")))) for key, _, dims in names}
    folder = tmp_path / "downloads"
    folder.mkdir()
    save(folder / INCEPTION, shapes)
    assert convert(folder, tmp_path / "jax") == 0
    assert read_config(tmp_path / "jax").networks == {"inception": InceptionConfig.fid()}
    assert convert(folder / INCEPTION, tmp_path / "alone") == 0
    assert read_config(tmp_path / "alone").networks == {"inception": InceptionConfig.fid()}
    judges = load_judges([tmp_path / "jax"], ["inception"])
    assert judges.folders == (tmp_path / "jax",)


def test_half_of_a_network_is_refused(downloads, tmp_path, capsys):
    (downloads / "vgg.pth").unlink()
    assert convert(downloads, tmp_path / "jax") == 1
    message = capsys.readouterr().err
    assert "lpips_vgg: vgg.pth, from https://" in message and "alex" not in message


def test_every_misfit_is_in_one_report(downloads, tmp_path, capsys):
    save(downloads / "alex.pth", head_shapes((4, 6, 8, 10, 11)))
    wrong = backbone_shapes("vgg", WIDTHS)
    del wrong["features.28.bias"]
    save(downloads / FILES["vgg"], wrong | {"features.99.bias": (3,)})
    assert convert(downloads, tmp_path / "jax") == 1
    message = capsys.readouterr().err
    for part in ("lin4.model.1.weight", "features.28.bias", "features.99.bias"):
        assert part in message
    assert not (tmp_path / "jax").exists()


def test_verify_says_that_it_cannot(downloads, tmp_path, capsys):
    assert convert(downloads, tmp_path / "jax", verify=True) == 1
    assert "lpips_alex, lpips_vgg: no library" in capsys.readouterr().err


def test_what_a_protocol_lacks_is_named_with_its_source(downloads, tmp_path):
    assert convert(downloads, tmp_path / "jax") == 0
    with pytest.raises(FileNotFoundError) as raised:
        load_judges([tmp_path / "jax"], ["lpips_alex", "inception", "dinov2"])
    message = str(raised.value)
    assert "inception: download https://github.com/mseitzer" in message
    assert "dinov2: is in a whole model's folder" in message and "lpips" not in message
