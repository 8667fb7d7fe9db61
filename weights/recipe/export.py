"""Write a trained model as an ordinary Llama checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.train import ROPE_THETA, model_config
from tokenglass.weights.recipe.vocabulary import MASK, write_tokenizer

SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 0}


def write_checkpoint(state: Path, out: Path, tokenizer: Tokenizer) -> None:
    """Write the weights of a training state to `out` in bfloat16."""
    trained = torch.load(state, weights_only=True)["model"]
    out.mkdir(parents=True, exist_ok=True)
    config = model_config()
    rounded = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in trained.items()}
    save_file(rounded, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", hf_config(config, tokenizer))
    end = config.eos_token_ids[0]
    write_json(out / "generation_config.json", {"bos_token_id": end, "eos_token_id": end, **SAMPLING})
    write_tokenizer(tokenizer, out, config.max_positions)


def read_model(folder: Path) -> Transformer:
    """The model that write_checkpoint wrote, in any shape, computing in float32."""
    shape = json.loads((folder / "config.json").read_text())
    config = replace(
        model_config(),
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_heads=shape["num_attention_heads"],
        num_kv_heads=shape["num_key_value_heads"],
        layers=model_config().layers[:1] * shape["num_hidden_layers"],
    )
    model = Transformer(config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def hf_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": config.dtype,
        "bos_token_id": config.eos_token_ids[0],
        "eos_token_id": config.eos_token_ids[0],
        "mask_token_id": tokenizer.token_to_id(MASK),
    }


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
