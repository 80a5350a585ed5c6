"""Which PyTorch names differ from ours, network by network (checked by tests/converters).

The maps give the names that most downloads have; the styles are how other files of the same network
name the same tensors.
"""

import dataclasses
import re
from collections.abc import Collection

from converters.weightmap import KeyStyle, WeightMap

UNET = WeightMap(
    renames=(("to_out", "to_out.0"), ("ff.proj_in", "ff.net.0.proj"), ("ff.proj_out", "ff.net.2")),
    conv1x1=(r".*/attentions/\d+/proj_(in|out)/kernel",),
)
"""UNet2DConditionModel."""

REFERENCE_UNET = dataclasses.replace(UNET, extra=(r"conv_(norm_)?out\.(weight|bias)",))
"""The same without an output head."""

CONTROLNET = WeightMap(renames=UNET.renames, conv1x1=UNET.conv1x1)
"""ControlNetModel with MagicColor's `dino_adapter`, or without."""

SKETCH_GUIDER = dataclasses.replace(CONTROLNET, extra=(r"dino_adapter\.0\.(weight|bias)",))
"""Its adapter exists and is unused (release.md §1)."""

CONTEXT = WeightMap()
"""Our own, which no PyTorch release has: `norm`, `proj_in`, `proj_out`."""

VAE = WeightMap(renames=(("to_out", "to_out.0"),))
"""AutoencoderKL with the attention names of diffusers >= 0.18."""

CLIP_VISION = WeightMap(extra=(r"(vision_model\.)?embeddings\.position_ids", r"logit_scale"))
"""CLIPVisionModelWithProjection; the two towers share one file in CLIPModel."""

CLIP_TEXT = WeightMap(
    extra=(
        r"(text_model\.)?embeddings\.position_ids",
        r"text_projection\.weight",
        r"logit_scale",
    )
)
"""CLIPTextModel, as the downloads name it; no network uses its projection."""

DINOV2 = WeightMap(extra=(r"(embeddings\.)?mask_token",))
"""DINOv2's hub files."""

VGG19 = WeightMap(extra=(r"classifier\.\d+\.(weight|bias)",))
"""torchvision's vgg19; only the convolutions are used."""

LPIPS = WeightMap(
    renames=tuple((f"lin{number}", f"lin{number}.model.1") for number in range(5)),
    conv1x1=(r"lin\d/kernel",),
    extra=VGG19.extra,
)
"""torchvision's alexnet or vgg16, and the heads of the authors' `lpips`, in a file of their own."""

INCEPTION = WeightMap(extra=(r"fc\.(weight|bias)", r".*\.num_batches_tracked"))
"""pytorch-fid's weights of Inception-v3; the classifier is not used."""

SAM = WeightMap(
    conv1x1=(
        r"image_encoder/neck/0/kernel",
        r"prompt_encoder/mask_downscaling/6/kernel",
    ),
    extra=(r"prompt_encoder\.shared_embedding\.positional_embedding",),
)
"""segment-anything's files; transformers' have the places' matrix twice."""

ANIME2SKETCH = WeightMap(extra=(r".*\.smooth\.kernel",))
"""Anime2Sketch's `netG.pth` and `improved.bin`, whose blur is a constant."""

SKETCH_KERAS = WeightMap(extra=(r".*\.num_batches_tracked",))
"""sketchKeras-pytorch's `model.pth`."""

INFORMATIVE_DRAWINGS = WeightMap()
"""Informative Drawings' generator: `sk_model.pth`, `sk_model2.pth`."""

BY_KIND = {
    "unet": UNET,
    "controlnet": CONTROLNET,
    "context": CONTEXT,
    "vae": VAE,
    "clip_vision": CLIP_VISION,
    "clip_text": CLIP_TEXT,
    "dinov2": DINOV2,
    "vgg19": VGG19,
    "lpips": LPIPS,
    "sam": SAM,
    "inception": INCEPTION,
    "anime2sketch": ANIME2SKETCH,
    "sketch_keras": SKETCH_KERAS,
    "informative_drawings": INFORMATIVE_DRAWINGS,
}
"""Kind of network (`checkpoint.KINDS`) -> its map."""

DIFFUSERS = KeyStyle(name="diffusers")
DIFFUSERS_OLD_ATTENTION = KeyStyle(
    name="diffusers-old-attention",
    marker=r"attentions\.0\.query\.",
    renames=(
        (r"(attentions\.0\.)to_q\.", r"\1query."),
        (r"(attentions\.0\.)to_k\.", r"\1key."),
        (r"(attentions\.0\.)to_v\.", r"\1value."),
        (r"(attentions\.0\.)to_out\.0\.", r"\1proj_attn."),
    ),
    pointwise=r".*\.attentions\.0\.(query|key|value|proj_attn)\.weight",
)
"""The autoencoder before diffusers 0.18."""

TRANSFORMERS = KeyStyle(name="transformers")
TRANSFORMERS_FLAT = KeyStyle(
    name="transformers-flat",
    marker=r"^(encoder\.layers|final_layer_norm)\.",
    renames=((r"^text_model\.", ""),),
)
"""CLIPTextModel as transformers >= 5.6 saves it."""

DINOV2_HUB = KeyStyle(name="dinov2-hub")
DINOV2_TRANSFORMERS = KeyStyle(
    name="dinov2-transformers",
    marker=r"^embeddings\.cls_token$",
    renames=(
        (r"^(cls_token|register_tokens|mask_token)$", r"embeddings.\1"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.qkv\.", ".attention.attention.QKV."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
        (r"\.mlp\.w12\.", ".mlp.weights_in."),
        (r"\.mlp\.w3\.", ".mlp.weights_out."),
        (r"^norm\.", "layernorm."),
    ),
    split=("QKV", ("query", "key", "value")),
)
"""transformers' Dinov2Model and Dinov2WithRegistersModel, in every version's files."""

TORCHVISION = KeyStyle(name="torchvision")
PYTORCH_FID = KeyStyle(name="pytorch-fid")

SEGMENT_ANYTHING = KeyStyle(name="segment-anything")
SAM_TRANSFORMERS = KeyStyle(
    name="sam-transformers",
    marker=r"^shared_image_embedding\.",
    renames=(
        (r"^prompt_encoder\.pe_layer\..*", "shared_image_embedding.positional_embedding"),
        (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
        (r"mask_downscaling\.0\.", "mask_embed.conv1."),
        (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
        (r"mask_downscaling\.3\.", "mask_embed.conv2."),
        (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
        (r"mask_downscaling\.6\.", "mask_embed.conv3."),
        (r"\.neck\.0\.", ".neck.conv1."),
        (r"\.neck\.1\.", ".neck.layer_norm1."),
        (r"\.neck\.2\.", ".neck.conv2."),
        (r"\.neck\.3\.", ".neck.layer_norm2."),
        (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
        (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
        (r"^image_encoder\.", "vision_encoder."),
        (r"\.norm(\d)\.", r".layer_norm\1."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (r"output_upscaling\.0\.", "upscale_conv1."),
        (r"output_upscaling\.1\.", "upscale_layer_norm."),
        (r"output_upscaling\.3\.", "upscale_conv2."),
        (r"(mlps\.\d|head)\.layers\.0\.", r"\1.proj_in."),
        (r"(mlps\.\d|head)\.layers\.1\.", r"\1.layers.0."),
        (r"(mlps\.\d|head)\.layers\.2\.", r"\1.proj_out."),
    ),
)
"""SamModel."""

PLAIN = KeyStyle(name="plain")
DATA_PARALLEL = KeyStyle(name="data-parallel", marker=r"^module\.", renames=((r"^", "module."),))
"""A module that was saved inside of PyTorch's DataParallel."""

STYLES = {
    "unet": (DIFFUSERS,),
    "controlnet": (DIFFUSERS,),
    "context": (PLAIN,),
    "vae": (DIFFUSERS, DIFFUSERS_OLD_ATTENTION),
    "clip_vision": (TRANSFORMERS,),
    "clip_text": (TRANSFORMERS, TRANSFORMERS_FLAT),
    "dinov2": (DINOV2_HUB, DINOV2_TRANSFORMERS),
    "vgg19": (TORCHVISION,),
    "lpips": (TORCHVISION,),
    "sam": (SEGMENT_ANYTHING, SAM_TRANSFORMERS),
    "inception": (PYTORCH_FID,),
    "anime2sketch": (PLAIN, DATA_PARALLEL),
    "sketch_keras": (PLAIN, DATA_PARALLEL),
    "informative_drawings": (PLAIN, DATA_PARALLEL),
}
"""Kind of network -> how its files name things; the first row is the map's own names."""


def detect_style(kind: str, keys: Collection[str]) -> KeyStyle:
    """The style of a file of this kind of network, by its keys."""
    literal, *others = STYLES[kind]
    for style in others:
        if any(re.search(style.marker, key) for key in keys):
            return style
    return literal


def style_named(kind: str, name: str) -> KeyStyle:
    """The row of `STYLES` that a manifest names.

    Raises:
        ValueError: there is none of that name.
    """
    for style in STYLES[kind]:
        if style.name == name:
            return style
    known = [style.name for style in STYLES[kind]]
    raise ValueError(f"manifest: key style of a {kind} must be one of {known}, got {name!r}")
