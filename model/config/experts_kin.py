"""Readers of config.json for families with experts, over those of their dense kin. No torch here."""

from __future__ import annotations

from dataclasses import replace

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import num_layers, qwen_windows, window, windows_by_type, with_layers
from tokenglass.model.config.llama_kin import read_granite, read_llama, read_mistral
from tokenglass.model.config.mixture import ClampedSwiGlu, every_layer, read_mixture, some_layers
from tokenglass.model.config.sizes import Switches, sizes


def read_mixtral(f: Fields) -> Switches:
    switches = read_mistral(f)
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": read_mixture(f, renormalise=True)}


def read_granitemoe(f: Fields) -> Switches:
    switches = {**read_granite(f), "mlp_bias": False}
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": read_mixture(f, renormalise=True)}


def read_olmoe(f: Fields) -> Switches:
    f.refuse("clip_qkv")
    switches = {**read_llama(f), "mlp_bias": False, "qk_norm": "projection"}
    mixture = read_mixture(f, renormalise=f.boolean("norm_topk_prob"))
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": mixture}


GPT_OSS_ROPE = {  # of a file that names none
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def read_gpt_oss(f: Fields) -> Switches:
    """Every other layer has a window, from the first on. Activations are fixed, whatever hidden_act says."""
    windows = windows_by_type(f, [layer % 2 == 1 for layer in range(num_layers(f))])
    if not (f.part("rope_parameters").raw or f.part("rope_scaling").raw):
        f = f.replace({"rope_parameters": GPT_OSS_ROPE})
    switches = {**read_llama(f), **with_layers(f, windows=windows)}
    return {
        **switches,
        "mlp_bias": True,
        "sinks": True,
        "swiglu": ClampedSwiGlu(f.number("swiglu_alpha"), f.number("swiglu_limit")),
        "layers": every_layer(switches["layers"]),
        "mixture": replace(read_mixture(f, renormalise=True), router_bias=True),
    }


def read_qwen2_moe(f: Fields) -> Switches:
    """Without layer_types, every other of the first max_window_layers has a window."""
    count = num_layers(f)
    if f.boolean("use_sliding_window"):
        most = f.integer("max_window_layers")
        windows = windows_by_type(f, [layer % 2 == 1 or layer >= most for layer in range(count)])
    else:
        f.get("sliding_window")  # 0, as transformers writes it
        windows = qwen_windows(f.replace({"sliding_window": None}))
    switches = {**sizes(f), "qkv_bias": f.boolean("qkv_bias", True), **with_layers(f, windows=windows)}
    mixture = read_mixture(
        f,
        renormalise=f.boolean("norm_topk_prob"),
        size="moe_intermediate_size",
        shared="shared_expert_intermediate_size",
    )
    return {**switches, "layers": some_layers(f, switches["layers"]), "mixture": mixture}


def read_qwen3_moe(f: Fields) -> Switches:
    size = window(f)
    windows = [size if f.boolean("use_sliding_window") else None] * num_layers(f)
    bias = f.boolean("attention_bias")
    switches = {**sizes(f), "qk_norm": "head", "qkv_bias": bias, "o_bias": bias, **with_layers(f, windows=windows)}
    mixture = read_mixture(f, renormalise=f.boolean("norm_topk_prob"), size="moe_intermediate_size")
    return {**switches, "layers": some_layers(f, switches["layers"]), "mixture": mixture}
