"""config.json: both of its styles are read, and what would change the numbers is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.config.config import ModelConfig, read_json, token_ids
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.errors import ConfigError

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_every_field_is_read() -> None:
    config = ModelConfig.from_hf({**LLAMA, "head_dim": 16, "rope_theta": 5e5, "dtype": "bfloat16", "eos_token_id": 7})
    assert config == ModelConfig(
        model_type="llama",
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_positions=256,
        norm_eps=1e-5,
        layers=(LayerKind(Rope(theta=5e5, dim=16)),) * 2,
        tie_word_embeddings=True,
        dtype="bfloat16",
        eos_token_ids=(7,),
    )


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ],
)
def test_rope_theta_is_found_in_every_style_of_file(rope: dict[str, Any]) -> None:
    assert ModelConfig.from_hf({**LLAMA, **rope}).layers[0].rope == Rope(theta=5e5, dim=8)


def test_what_is_left_out_has_the_defaults_of_transformers() -> None:
    needed = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    config = ModelConfig.from_hf({**{name: LLAMA[name] for name in needed}, "num_attention_heads": 8})
    assert (config.num_kv_heads, config.head_dim, config.max_positions) == (8, 4, 2048)
    assert (config.norm_eps, config.layers[0].rope) == (1e-6, Rope(theta=10000.0, dim=4))
    assert (config.tie_word_embeddings, config.dtype, config.eos_token_ids) == (False, "float32", ())


@pytest.mark.parametrize(("named", "ids"), [(3, (3,)), ([3, 5], (3, 5)), (None, ()), ([], ())])
def test_an_end_token_is_one_id_a_list_or_nothing(named: Any, ids: tuple[int, ...]) -> None:
    assert token_ids({"eos_token_id": named}, "eos_token_id", "config.json") == ids


REFUSED = [
    ("model_type", "jamba", "model_type 'jamba' is not supported"),
    ("model_type", None, "model_type None is not supported"),
    ("hidden_act", "mish", "hidden_act 'mish' is not supported"),
    ("attention_bias", "yes", "attention_bias is 'yes'; expected true or false"),
    ("per_layer_config", {"0": {"hidden_size": 8}}, "per_layer_config .* is not supported"),
    ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "rope_scaling: low_freq_factor is None; expected"),
    ("rope_scaling", {"type": "linear"}, "rope_scaling: factor is None; expected a number"),
    ("rope_parameters", {"rope_type": "ntk"}, "rope_parameters with rope_type 'ntk' is not supported"),
    ("rope_parameters", [1], r"rope_parameters is \[1\]; expected an object"),
    ("rope_theta", "big", "rope_theta is 'big'; expected a number"),
    ("rope_theta", float("nan"), "rope_theta is nan; expected a positive number"),
    ("rope_theta", 10**400, "rope_theta is too large a number"),
    ("rms_norm_eps", -1.0, "norm_eps is -1.0; expected a positive number"),
    ("hidden_size", "32", "hidden_size is '32'; expected a whole number"),
    ("hidden_size", True, "hidden_size is True; expected a whole number"),
    ("hidden_size", None, "hidden_size is None; expected a whole number"),
    ("hidden_size", 0, "hidden_size is 0; expected between 1 and"),
    ("vocab_size", 2**40, "vocab_size is 1099511627776; expected between 1 and"),
    ("num_hidden_layers", 2**24, "num_hidden_layers is 16777216; expected between 1 and 1,024"),
    ("num_attention_heads", 0, "num_heads is 0; expected between 1 and"),
    ("num_attention_heads", 2**24, "head_dim is 0; expected between 1 and"),
    ("num_key_value_heads", 3, "4 attention heads cannot be shared by 3 key-value heads"),
    ("head_dim", 7, "head_dim is 7; rotary positions need an even number"),
    ("head_dim", 2**24, "4 heads of size 16777216 are more than"),
    ("tie_word_embeddings", "yes", "tie_word_embeddings is 'yes'; expected true or false"),
    ("dtype", "int8", "dtype 'int8' is not supported"),
    ("dtype", ["float32"], r"dtype \['float32'\] is not supported"),
    ("eos_token_id", -1, "eos_token_id is -1; expected a token id"),
    ("eos_token_id", [1, "x"], "expected a token id or a list of them"),
]


@pytest.mark.parametrize(
    ("field", "value", "message"), REFUSED, ids=[f"{name}={value}"[:40] for name, value, _ in REFUSED]
)
def test_what_cannot_be_run_is_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.from_hf({**LLAMA, field: value})
    assert str(caught.value).startswith("config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "pieces"),
    [
        ({"model_type": "minimax", "num_local_experts": 8}, "it has a mixture of experts"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512, "n_routed_experts": 256}, "experts, latent attention"),
        (
            {
                "model_type": "olmo_hybrid",
                "linear_num_value_heads": 3,
                "layer_types": ["linear_attention", "full_attention"],
            },
            "linear attention, layers of the kind linear_attention",
        ),
        (
            {"model_type": "llama4", "text_config": {"num_local_experts": 16, "attention_chunk_size": 8192}},
            "experts, chunked",
        ),
        ({"model_type": "bloom", "alibi": True}, "it has ALiBi positions"),
        ({"model_type": "renamed", "num_experts": 1, "alibi": False}, "supported: llama, mistral"),
        ({"model_type": "qwen2_mo"}, "supported: qwen2_moe, "),
        ({"model_type": "x" * 10_000}, "supported: llama, mistral"),
    ],
)
def test_an_unsupported_family_is_refused_by_the_pieces_that_are_missing(raw: dict[str, Any], pieces: str) -> None:
    with pytest.raises(ConfigError, match=pieces) as caught:
        ModelConfig.from_hf(raw)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


FIELDS = sorted({*LLAMA, *(field for field, _, _ in REFUSED)} - {"model_type"})


@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_any_json_is_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        config = ModelConfig.from_hf({**LLAMA, **changes})
    except ConfigError:
        return
    assert config.num_heads % config.num_kv_heads == 0


def write(folder: Path, content: bytes) -> Path:
    (folder / "config.json").write_bytes(content)
    return folder / "config.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * 1001, "larger than 1,000 bytes, refused"),
    ],
)
def test_a_file_that_is_not_a_json_object_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    limit = 1000 if content.isspace() else 2**20
    with pytest.raises(ConfigError, match=message) as caught:
        read_json(write(tmp_path, content), limit)
    assert "\n" not in str(caught.value)


def test_nan_in_a_file_is_refused_where_it_is_used(tmp_path: Path) -> None:
    text = json.dumps({**LLAMA, "rms_norm_eps": float("nan"), "initializer_range": float("inf")})
    with pytest.raises(ConfigError, match="norm_eps is nan"):
        ModelConfig.from_file(write(tmp_path, text.encode()))


def test_a_missing_file_and_a_folder_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_json(tmp_path / "config.json")


def test_derived_sizes() -> None:
    config = ModelConfig.from_hf(LLAMA)
    assert config.group_size == 2
    values = 2 * 2 * 2 * 8  # keys and values, layers, heads, head_dim
    assert config.cache_bytes_per_token("bfloat16") == 2 * values
