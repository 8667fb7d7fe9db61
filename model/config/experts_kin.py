"""Readers of config.json for families with experts, over those of their dense kin. No torch here."""

from __future__ import annotations

from dataclasses import replace

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import num_layers, qwen_windows, window, windows_by_type, with_layers
from tokenglass.model.config.llama_kin import read_glm, read_granite, read_hunyuan, read_llama, read_mistral
from tokenglass.model.config.mixture import (
    ClampedSwiGlu,
    every_layer,
    later_layers,
    read_mixture,
    read_sigmoid_mixture,
    some_layers,
)
from tokenglass.model.config.olmo_kin import read_olmo2
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


def read_granitemoeshared(f: Fields) -> Switches:
    switches, size = read_granitemoe(f), f.integer("shared_intermediate_size")
    return {**switches, "mixture": replace(switches["mixture"], shared_size=size or None, shared_gate=False)}


def read_flex_olmo(f: Fields) -> Switches:
    switches, mixture = read_olmo2(f), read_mixture(f, renormalise=f.boolean("norm_topk_prob"))
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": mixture}


def read_hunyuan_moe(f: Fields) -> Switches:
    f = f.replace({"num_experts_per_tok": f.get("moe_topk")})
    switches, mixture = read_hunyuan(f), read_mixture(f, renormalise=True)
    mixture = replace(mixture, shared_size=f.integer("intermediate_size"), shared_gate=False)
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": mixture}


def read_minimax_m2(f: Fields) -> Switches:
    """Earlier files name the numbers of a head that turn."""
    if f.get("rotary_dim") is not None:
        f = f.replace({"partial_rotary_factor": f.integer("rotary_dim") / f.integer("head_dim")})
    switches = {**sizes(f), "qk_norm": "projection", **with_layers(f, partial="partial_rotary_factor")}
    mixture = replace(read_mixture(f, renormalise=True), sigmoid=True, choice_bias=True)
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": mixture}


def read_glm4_moe(f: Fields) -> Switches:
    switches = {**read_glm(f), "qk_norm": "head" if f.boolean("use_qk_norm") else None}
    return {**switches, "layers": later_layers(f, switches["layers"]), "mixture": read_sigmoid_mixture(f)}


def read_solar_open(f: Fields) -> Switches:
    switches = {**read_llama(f), "o_bias": False, "mlp_bias": False}
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": read_sigmoid_mixture(f)}


def read_dots1(f: Fields) -> Switches:
    """Without layer_types, those from layer max_window_layers on have the window."""
    most, bias = f.integer("max_window_layers"), f.boolean("attention_bias")
    windows = windows_by_type(f, [window(f) is None or layer < most for layer in range(num_layers(f))])
    switches = {**sizes(f), "qk_norm": "head", "qkv_bias": bias, "o_bias": bias, **with_layers(f, windows=windows)}
    return {**switches, "layers": later_layers(f, switches["layers"]), "mixture": read_sigmoid_mixture(f)}


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
