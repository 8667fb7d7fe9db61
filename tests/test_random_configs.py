"""Random configurations of every family, saved by transformers, give transformers' logits.

`python tests/test_random_configs.py 100` tries that many of each family.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from test_families import older, save
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.families import FAMILIES

POSITIONS, LENGTH = 64, 48
Options = dict[str, Any]


def random_options(family: str, chance: random.Random) -> Options:
    """Arguments of a family's config class, each option as likely to be set as not."""
    heads = chance.choice((1, 2, 4))
    size = chance.choice((8, 16))
    options: Options = {
        "vocab_size": 64,
        "hidden_size": heads * size,
        "intermediate_size": chance.choice((24, 40)),
        "num_hidden_layers": chance.randint(1, 4),
        "num_attention_heads": heads,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.3,
        "pad_token_id": None,
        "tie_word_embeddings": chance.random() < 0.5,
    }
    if family == "gpt2":
        return options | {
            "n_inner": chance.choice((None, 24)),
            "activation_function": chance.choice(("gelu_new", "gelu", "relu", "silu")),
            "layer_norm_epsilon": chance.choice((1e-5, 1e-3)),
            "scale_attn_weights": chance.random() < 0.5,
            "reorder_and_upcast_attn": chance.random() < 0.5,
        }
    act = "hidden_activation" if family.startswith("gemma") else "hidden_act"
    options[act] = chance.choice(("silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "gelu_fast", "gelu_python"))
    options["layer_norm_eps" if family == "gpt_neox" else "rms_norm_eps"] = chance.choice((1e-6, 1e-5, 1e-2))
    if family != "gpt_neox":
        options["num_key_value_heads"] = chance.choice([count for count in (1, 2, 4) if heads % count == 0])
    if family in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2"):
        options["head_dim"] = size = chance.choice((size, 12))
    if family in ("llama", "qwen3", "gemma2", "gemma3_text", "olmo2", "smollm3", "gpt_neox"):
        options["attention_bias"] = chance.random() < 0.5
    if family in ("llama", "smollm3"):
        options["mlp_bias"] = chance.random() < 0.5
    options |= random_windows(family, options["num_hidden_layers"], chance)
    share = chance.choice((1.0, 0.5)) if family in ("gpt_neox", "phi3") else None
    rope = random_rope(family, size if share is None else int(size * share), chance)
    if share is not None:
        rope["partial_rotary_factor"] = share
    if family == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": chance.choice((500.0, 10000.0))}
        rope = {"full_attention": rope, "sliding_attention": local}
    if family == "gpt_neox":
        options["use_parallel_residual"] = chance.random() < 0.5
    if family == "phi3":
        options["original_max_position_embeddings"] = 32
    return options | {"rope_parameters": rope}


def random_windows(family: str, layers: int, chance: random.Random) -> Options:
    """Sliding windows, soft caps and layers without positions, in the families that have them."""
    window = chance.choice((5, 20, POSITIONS))
    types = [chance.choice(("sliding_attention", "full_attention")) for _ in range(layers)]
    caps = {"final_logit_softcapping": chance.choice((None, 5.0))}
    match family:
        case "mistral" | "phi3":
            return {"sliding_window": chance.choice((None, window))}
        case "qwen2" | "qwen3":
            on = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": chance.randint(0, layers)}
            return chance.choice(({}, on, {**on, "layer_types": types}))
        case "gemma2" | "gemma3_text":
            if family == "gemma2":
                caps["attn_logit_softcapping"] = chance.choice((None, 2.0))
            typed = chance.choice(({}, {"layer_types": types}))
            return {"sliding_window": window, "query_pre_attn_scalar": chance.choice((7, 16)), **caps, **typed}
        case "smollm3":
            none = [chance.randint(0, 1) for _ in range(layers)]
            nowhere = chance.choice(({}, {"no_rope_layers": none}, {"no_rope_layer_interval": 2}))
            return {**nowhere, **chance.choice(({}, {"use_sliding_window": True, "sliding_window": window}))}
        case _:
            return {}


def random_rope(family: str, dim: int, chance: random.Random) -> Options:
    theta = {"rope_theta": chance.choice((500.0, 10000.0, 1e6))}
    factors = {key: [chance.uniform(0.8, 8) for _ in range(dim // 2)] for key in ("short_factor", "long_factor")}
    trained = {"factor": chance.choice((2.0, 4.0)), "original_max_position_embeddings": 32}
    kinds: list[Options] = [{"rope_type": "default"}]
    if family != "phi3":
        kinds += [
            {"rope_type": "linear", "factor": chance.choice((0.5, 4.0))},
            {"rope_type": "yarn", **trained, **chance.choice(({}, {"beta_fast": 4, "truncate": False}))},
            {"rope_type": "yarn", **trained, "mscale": 0.7, "mscale_all_dim": 0.4},
            {"rope_type": "llama3", **trained, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ]
    if family != "gemma3_text":
        kinds.append({"rope_type": "longrope", **factors, "original_max_position_embeddings": 32})
    return theta | chance.choice(kinds)


def largest_difference(family: str, seed: int, folder: Path) -> tuple[float, Options]:
    """Between our logits and transformers', relative to the largest, for a random configuration; and that."""
    chance = random.Random(f"{family} {seed}")
    options = random_options(family, chance)
    reference = save(folder, family, options)
    if chance.random() < 0.5:
        file = folder / "config.json"
        file.write_text(json.dumps(older(json.loads(file.read_text()))))
    ids = torch.randint(0, 64, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = reference(ids).logits
    actual = as_tensor(
        load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").forward(ids, None, last=None)
    )
    return float((actual - expected).abs().max() / max(10.0, float(expected.abs().max()))), options


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers(family: str, seed: int, tmp_path: Path) -> None:
    difference, options = largest_difference(family, seed, tmp_path)
    assert difference < 1e-5, options


if __name__ == "__main__":
    for name in FAMILIES:
        found = []
        for number in range(int(sys.argv[1])):
            with tempfile.TemporaryDirectory() as made:
                found.append(largest_difference(name, number, Path(made))[0])
        print(f"{name}: {len(found)} configurations, largest difference {max(found):.1e}")
