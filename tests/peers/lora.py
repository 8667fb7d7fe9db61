"""Random LoRA adapters that PEFT writes, and the logits of PEFT's model beside ours, on both engines.

pip install peft
python tests/peers/lora.py
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from tokenglass.model.checkpoint.adapter import Adapter
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.storage import as_tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny
from families import CASES as FAMILIES
from families import save

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SIZES, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": None}
BIASED = {**LLAMA, "attention_bias": True}
TIED = {**LLAMA, "tie_word_embeddings": True}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
NEOX = {**SIZES, "initializer_range": 0.3}
ALL_LINEAR = (
    *("gemma4_text", "gemma4_text, no token rows", "gemma4_text, experts", "lfm2", "lfm2_moe", "lfm3"),
    *("qwen3_5_text", "qwen3_5_moe_text"),
)
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("two targets", "llama", LLAMA, {"target_modules": ["q_proj", "down_proj"]}),
    ("all linear, rsLoRA", "llama", LLAMA, {"target_modules": "all-linear", "use_rslora": True}),
    ("a regular expression", "llama", LLAMA, {"target_modules": r".*layers\.1\..*(q|v)_proj"}),
    ("one layer", "llama", LLAMA, {"target_modules": ["o_proj"], "layers_to_transform": [1]}),
    (
        "ranks and alphas",
        "llama",
        LLAMA,
        {
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"v_proj": 2, "^model.layers.1.mlp.up_proj": 6},
            "alpha_pattern": {"v_proj": 32, "layers.0.mlp.up_proj": 5},
        },
    ),
    ("all biases", "llama", BIASED, {"target_modules": ["q_proj"], "bias": "all"}),
    ("biases of its own", "llama", BIASED, {"target_modules": ["q_proj"], "bias": "lora_only"}),
    ("saved modules", "llama", LLAMA, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm", "o_proj"]}),
    ("an embedding", "llama", LLAMA, {"target_modules": ["embed_tokens", "q_proj"]}),
    ("a head", "llama", LLAMA, {"target_modules": ["lm_head"]}),
    ("a tied embedding", "llama", TIED, {"target_modules": ["embed_tokens"]}),
    ("a tied embedding and head", "llama", TIED, {"target_modules": ["embed_tokens", "lm_head"]}),
    ("a saved tied embedding", "llama", TIED, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    ("a saved tied head", "llama", TIED, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    ("gpt2", "gpt2", GPT2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    ("gpt2's embeddings", "gpt2", GPT2, {"target_modules": ["wte", "wpe"]}),
    ("phi3", "phi3", LLAMA, {"target_modules": "all-linear"}),
    ("gpt_neox", "gpt_neox", NEOX, {"target_modules": ["query_key_value", "dense"]}),
    ("glm4", "glm4", {**LLAMA, "head_dim": 8}, {"target_modules": ["q_proj", "gate_up_proj"]}),
    ("gemma2", "gemma2", {**LLAMA, "head_dim": 8}, {"target_modules": "all-linear"}),
    (
        "qwen3_next",
        *FAMILIES["qwen3_next"],
        {"target_modules": ["q_proj", "o_proj", "in_proj_qkvz", "in_proj_ba", "out_proj"]},
    ),
    *((name, *FAMILIES[name], {"target_modules": "all-linear"}) for name in ALL_LINEAR),
]


def largest_difference(folder: Path, family: str, options: dict[str, Any], lora: dict[str, Any]) -> float:
    """Between our logits and those of PEFT's model, relative to the largest."""
    save(folder / "base", family, options)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    tiny.byte_level_tokenizer().save(str(folder / "base" / "tokenizer.json"))
    adapted = get_peft_model(base, LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 10, **lora}))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(folder / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    reference = PeftModel.from_pretrained(base, folder / "adapter").eval()
    ids = torch.randint(0, 64, (2, 24))
    with torch.inference_mode():
        expected = reference(ids).logits
    adapter, largest = Adapter.open(folder / "adapter"), 0.0
    for backend in ("torch", "native"):
        loaded = load_model(folder / "base", dtype="float32", device="cpu", backend=backend, adapters=(adapter,))
        logits = loaded.engine.forward(ids.tolist(), None, last=None)
        difference = (torch.stack([as_tensor(row) for row in logits]) - expected).abs().max()
        largest = max(largest, float(difference / expected.abs().max()))
    return largest


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    disable_progress_bar()
    for name, family, options, lora in CASES:
        with tempfile.TemporaryDirectory() as made:
            print(f"{name:<28} {largest_difference(Path(made), family, options, lora):.1e}", flush=True)
