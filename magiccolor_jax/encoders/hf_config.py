"""Strict reading of transformers' config.json: a value that we cannot honour is an error."""

from collections.abc import Collection, Mapping
from typing import Any

GENERIC = frozenset(
    """
    _name_or_path architectures bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    id2label is_encoder_decoder label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    use_bfloat16 use_cache
    """.split()  # noqa: SIM905 (as a list it would be sixty lines)
)
"""What older versions of transformers wrote into every config: text generation and bookkeeping."""

STANDARD = {"add_cross_attention": False, "is_decoder": False, "pruned_heads": {}}
"""Generic keys that would change the network."""


def read(
    config: Mapping[str, Any],
    *,
    where: str,
    defaults: Mapping[str, Any],
    fixed: Mapping[str, Any],
    ignored: Collection[str],
) -> dict[str, Any]:
    """The values of `defaults`' keys, taken from `config` where it has them.

    Args:
        where: names the file or section in the error.
        defaults: key -> transformers' default, which a config may leave out.
        fixed: key -> the only value that the network honours, if the key is there.
        ignored: keys without influence on inference, besides `GENERIC`.

    Raises:
        ValueError: one report of every unknown key, unsupported value and wrong type.
    """
    fixed = STANDARD | dict(fixed)
    values = dict(defaults)
    report = []
    for key, value in config.items():
        if key in defaults:
            values[key] = _side(value) if isinstance(defaults[key], int) else value
            if not same_kind(values[key], defaults[key]):
                kind = type(defaults[key]).__name__
                report.append(f"  {key}: expected a value of type {kind}, got {value!r}")
        elif key in fixed:
            if value != fixed[key]:
                report.append(f"  {key}: only {fixed[key]!r} is supported, got {value!r}")
        elif key not in ignored and key not in GENERIC:
            report.append(f"  {key}: unknown key with value {value!r}")
    if report:
        raise ValueError(
            f"{where}: config does not describe a known network:\n" + "\n".join(report)
        )
    return values


def check_model_type(config: Mapping[str, Any], expected: Collection[str], where: str) -> str:
    """The config's `model_type`.

    Raises:
        ValueError: it is missing or not among the `expected`.
    """
    found = config.get("model_type", "")
    if found not in expected:
        raise ValueError(f"{where}: model_type must be one of {sorted(expected)}, got {found!r}")
    return found


def check_positive(config: object, names: Collection[str]) -> None:
    """Raises ValueError when one of these sizes of a config dataclass is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            kind = type(config).__name__
            raise ValueError(f"{kind}: {name} must be at least 1, got {getattr(config, name)}")


def _side(value: Any) -> Any:
    """transformers writes a square's side as `n` or `[n, n]`."""
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value


def same_kind(value: Any, default: Any) -> bool:
    """Whether `value` may stand where `default` stands: an int passes for a float, no bool does."""
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
