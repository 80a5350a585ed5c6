"""Files of weights that tests make, change and convert."""

from converters import ConvertArgs
from converters.containers import FileRecord, open_weights, write_weights
from converters.run import convert
from magiccolor_jax.tensorfile import TensorSpec


def rewrite(path, change):
    """Replaces a safetensors file by `change(key, array)` of its tensors; None drops one."""
    with open_weights(path) as weights:
        changed = {key: change(key, weights.read(key)) for key in weights.specs}
    tensors = {key: array for key, array in changed.items() if array is not None}
    write_tensors(path, tensors)


def write_tensors(path, tensors):
    """Writes a safetensors file of these arrays."""
    specs = {key: TensorSpec(array.dtype, array.shape) for key, array in tensors.items()}
    record = FileRecord(path="", container="safetensors", tensors=specs)
    write_weights(path, record, tensors.items())


def to_jax(source, tmp_path, **rest):
    """Converts into `tmp_path/out`, and returns that."""
    convert(ConvertArgs(source=source, output=tmp_path / "out", **rest))
    return tmp_path / "out"
