"""Write a trained model as an ordinary Llama checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from model.config import ModelConfig
from model.transformer import Transformer
from weights.recipe.train import ROPE_THETA, model_config
from weights.recipe.vocabulary import MASK, write_tokenizer

SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 0}


def write_checkpoint(state: Path, out: Path, tokenizer: Tokenizer, start: Path | None = None, mix: float = 1.0) -> None:
    """Write the weights of a training state to `out` in bfloat16.

    With `start`, those that lie `mix` of the way from that checkpoint to them: on a straight line between a model and
    its fine-tuned successor lies one that does both tasks well (Wortsman et al. 2021, arXiv 2109.01903).
    """
    trained = torch.load(state, weights_only=True)["model"]
    if start is not None:
        before = read_model(start).state_dict()
        trained = {name: before[name].lerp(tensor, mix) for name, tensor in trained.items()}
    out.mkdir(parents=True, exist_ok=True)
    config = model_config()
    rounded = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in trained.items()}
    save_file(rounded, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", hf_config(config, tokenizer))
    end = config.eos_token_ids[0]
    write_json(out / "generation_config.json", {"bos_token_id": end, "eos_token_id": end, **SAMPLING})
    write_tokenizer(tokenizer, out, config.max_positions)


def read_model(folder: Path) -> Transformer:
    """The model that write_checkpoint wrote, computing in float32."""
    model = Transformer(model_config())
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
