"""What the readers of config.json share: sizes, activations, biases. No torch here."""

from __future__ import annotations

from typing import Any

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import ConfigError

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
    "xielu": "xielu",
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate"), "gelu_tanh"),
}

Switches = dict[str, Any]  # arguments of ModelConfig


def sizes(f: Fields, *, eps: str = "rms_norm_eps", act: str = "hidden_act") -> Switches:
    """The sizes by Llama's names."""
    hidden_size, num_heads = f.integer("hidden_size"), f.integer("num_attention_heads")
    return {
        "vocab_size": f.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": f.integer("intermediate_size"),
        "num_heads": num_heads,
        "num_kv_heads": f.integer("num_key_value_heads", num_heads),
        "head_dim": f.integer("head_dim", hidden_size // max(num_heads, 1)),
        "norm_eps": f.number(eps),
        "activation": activation(f, act),
    }


def with_bias() -> Switches:
    """LayerNorm and biases everywhere, a plain MLP: what came before Llama."""
    return {"norm": "layer", "qkv_bias": True, "o_bias": True, "mlp_bias": True, "gated_mlp": False}


def activation(f: Fields, key: str) -> str:
    name = f.text(key, "silu")
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"config.json: {key} {quote(name)} is not supported (supported: {', '.join(sorted(ACTIVATIONS))})"
        )
    return ACTIVATIONS[name]
