"""Reading CLIP's config.json: what old and new files look like, and what is refused."""

import pytest

from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig

SD15_TEXT_ENCODER = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}

OLD_GENERIC = {"bad_words_ids": None, "is_decoder": False, "pruned_heads": {}, "top_k": 50}

CLIP_VIT_L14 = {
    "architectures": ["CLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": OLD_GENERIC | SD15_TEXT_ENCODER,
    "text_config_dict": {"hidden_size": 768, "num_hidden_layers": 12, "projection_dim": 768},
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 224,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 512,
    },
    "vision_config_dict": None,
    "torch_dtype": "float32",
    "transformers_version": None,
}


@pytest.mark.parametrize("config", [SD15_TEXT_ENCODER, CLIP_VIT_L14])
def test_text_tower_and_its_true_special_tokens(config):
    """The files say bos 0, eos 2; the tokenizer says 49406, 49407 (release.md §2.3)."""
    read = CLIPTextConfig.from_hf(config)
    assert read == CLIPTextConfig.vit_l14()
    assert read.empty_prompt == (49406, 49407)


def test_special_tokens_of_newer_files_are_taken_as_they_are():
    small = SD15_TEXT_ENCODER | {"vocab_size": 50, "bos_token_id": 7, "eos_token_id": 9}
    assert CLIPTextConfig.from_hf(small).empty_prompt == (7, 9)


def test_vision_tower_is_sized_by_the_top_level_projection():
    assert CLIPVisionConfig.from_hf(CLIP_VIT_L14) == CLIPVisionConfig.vit_l14()


def test_vision_tower_alone():
    alone = CLIP_VIT_L14["vision_config"] | {"num_channels": 3, "patch_size": [14, 14]}
    assert CLIPVisionConfig.from_hf(alone) == CLIPVisionConfig.vit_l14(projection_dim=512)


def test_what_a_file_leaves_out_has_transformers_defaults():
    bare = CLIPVisionConfig.from_hf({"model_type": "clip", "vision_config": {}})
    assert (bare.hidden_size, bare.patch_size, bare.projection_dim) == (768, 32, 512)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act must be one of"),
        ({"hidden_size": 100}, "hidden_size must be a multiple of num_attention_heads"),
        ({"hidden_size": "768"}, "hidden_size: expected a value of type int, got '768'"),
        ({"hidden_size": None}, "hidden_size: expected a value of type int, got None"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected a value of type int, got True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads: only {} is supported"),
        ({"is_decoder": True}, "is_decoder: only False is supported"),
        ({"rope_theta": 1e4}, "rope_theta: unknown key with value 10000.0"),
        ({"eos_token_id": 49408}, "eos_token_id must be below vocab_size 49408, got 49408"),
        ({"model_type": "siglip"}, "model_type must be one of .*, got 'siglip'"),
        ({"model_type": "clip_vision_model"}, "model_type must be one of"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CLIPTextConfig.from_hf(SD15_TEXT_ENCODER | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_config": {"num_channels": 4}}, "num_channels: only 3 is supported, got 4"),
        ({"vision_config": {"image_size": [224, 112]}}, r"image_size: .* got \[224, 112\]"),
        ({"vision_config_dict": {"patch_size": 16}}, "14 in vision_config but 16 in"),
        ({"audio_config": {}}, "audio_config: unknown key"),
    ],
)
def test_a_combined_file_that_cannot_be_honoured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CLIPVisionConfig.from_hf(CLIP_VIT_L14 | change)


def test_one_report_names_every_fault():
    with pytest.raises(ValueError, match=r"(?s)is_decoder.*vocab_size.*rope_theta"):
        CLIPTextConfig.from_hf(
            {"model_type": "clip_text_model", "is_decoder": 1, "vocab_size": 1.5, "rope_theta": 0}
        )
