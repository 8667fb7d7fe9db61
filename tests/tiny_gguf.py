"""Small GGUF files, written with the gguf library from checkpoints that transformers wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf_metadata import byte_level_metadata, gemma4_divisors, own_metadata
from safetensors.torch import load_file

TYPES = gguf.GGMLQuantizationType
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
    # mixtures of experts
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "mlp.gate.wg": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    **{f"mlp.shared_expert.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
    # hunyuan
    "self_attn.query_layernorm": "attn_q_norm",
    "self_attn.key_layernorm": "attn_k_norm",
    # apertus
    "attention_layernorm": "attn_norm",
    "feedforward_layernorm": "ffn_norm",
    # gemma4
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
    "router.proj": "ffn_gate_inp",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    # lfm2
    "model.embedding_norm": "token_embd_norm",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "self_attn.out_proj": "attn_output",
    **{f"conv.{part}": f"shortconv.{part}" for part in ("in_proj", "conv", "out_proj")},
    "feed_forward.gate": "ffn_gate_inp",
    **{f"feed_forward.{old}": f"ffn_{new}" for old, new in (("w1", "gate"), ("w3", "up"), ("w2", "down"))},
    # qwen3_5
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
    # qwen3_next
    "linear_attn.in_proj_qkvz": "ssm_in",
    "linear_attn.in_proj_ba": "ssm_ba",
    # phi3
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
    # phi
    "model.final_layernorm": "output_norm",
    "self_attn.dense": "attn_output",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    # gpt2
    "model.wte": "token_embd",
    "model.wpe": "position_embd",
    "model.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    # exaone
    **{f"attn.attention.{part}_proj": f"attn_{part}" for part in "qkv"},
    "attn.attention.out_proj": "attn_output",
    "mlp.c_fc_0": "ffn_gate",
    "mlp.c_fc_1": "ffn_up",
    # gpt_neox
    "model.embed_in": "token_embd",
    "model.final_layer_norm": "output_norm",
    "embed_out": "output",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GLM4_NORMS = {
    "post_self_attn_layernorm": "post_attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "post_mlp_layernorm": "post_ffw_norm",
}
ARCHITECTURES = {
    "olmo3": "olmo2",
    "phi": "phi2",
    "gemma3_text": "gemma3",
    "gemma4_text": "gemma4",
    "gpt_neox": "gptneox",
    "mistral": "llama",
    "mixtral": "llama",
}
ARCHITECTURES |= {"cohere": "command-r", "glm": "chatglm", "granitemoeshared": "granitemoe"}
ARCHITECTURES |= {"glm4_moe": "glm4moe", "minimax_m2": "minimax-m2", "hunyuan_v1_moe": "hunyuan-moe"}
ARCHITECTURES |= {"qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "gpt_oss": "gpt-oss"}
ARCHITECTURES |= {"qwen3_5_text": "qwen35", "qwen3_5_moe_text": "qwen35moe", "qwen3_next": "qwen3next"}
ARCHITECTURES |= {"hunyuan_v1_dense": "hunyuan-dense", "ministral3": "mistral3", "lfm2_moe": "lfm2moe"}
DELTA = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
BARE = {"A_log": "ssm_a", "dt_bias": "ssm_dt.bias", "expert_bias": "exp_probs_b.bias"}
BARE |= {"e_score_correction_bias": "exp_probs_b.bias"}
BARE |= {"layer_scalar": "layer_output_scale.weight"}
BARE |= {"scale": "ffn_gate_inp.scale", "per_expert_scale": "ffn_down_exps.scale"}
POST_NORMED = ("gemma2", "gemma3_text", "gemma4_text", "olmo2", "olmo3", "seed_oss", "exaone4")
# where a block of a type that the library reads but does not write has its scales in float16, and the largest value
# that one of its numbers can have for a scale of 1
BLOCKS = {
    TYPES.Q2_K: ((80, 82), 45),
    TYPES.Q3_K: ((108,), 128),
    TYPES.Q4_K: ((0, 2), 945),
    TYPES.Q5_K: ((0, 2), 1953),
    TYPES.Q6_K: ((208,), 4096),
    TYPES.IQ4_NL: ((0,), 127),
    TYPES.IQ4_XS: ((0,), 4064),
}


def write_gguf(
    path: Path,
    checkpoint: Path,
    *,
    quantised: Any = TYPES.F32,
    tokenizer: dict[str, Any] | None = None,
    others: dict[str, np.ndarray] | None = None,
    tensors_per_file: int = 0,
    fused: bool = False,
    **more: Any,
) -> Path:
    """A checkpoint as llama.cpp's converter would write it, with `others` behind its tensors; `more` is metadata, None
    leaves a key out. `quantised` is the type of matrices, or gives it for a name.

    With `tensors_per_file` it is in several parts, of which the first is given back. `fused` keeps the inputs of
    qwen3_next's recurrences in one tensor, as earlier converters did, and glm's queries, keys and values, as files of
    its first releases do.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    family = config["model_type"]
    name = ARCHITECTURES.get(family, family)
    metadata = {
        **{f"{name}.{key}": value for key, value in own_metadata(config).items()},
        **(byte_level_metadata() if tokenizer is None else tokenizer),
        **xielu_metadata(checkpoint),
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    writer = gguf.GGUFWriter(path, name, split_max_tensors=tensors_per_file)
    for key, value in metadata.items():
        add(writer, key, value)
    tensors = plain_names(load_file(checkpoint / "model.safetensors"))
    if family == "glm":
        tensors = fused_queries(tensors) if fused else tensors
    elif not fused:
        tensors = split_inputs(tensors, config)
    for stored, tensor in stacked_experts(tensors, family).items():
        values, kind = tensor.float().numpy(), TYPES.F32
        if values.ndim == 3:
            kind = quantised(stored) if callable(quantised) and not isinstance(quantised, TYPES) else quantised
        blocks = quantised_blocks(values.reshape(-1, values.shape[-1]), kind) if kind in BLOCKS else None
        matrices = gguf.quantize(values, kind) if blocks is None else blocks.reshape(*values.shape[:-1], -1)
        writer.add_tensor(stored, matrices, raw_dtype=kind)
    for tensor_name, tensor in tensors.items():
        if any(part in tensor_name for part in ("experts.", "block_sparse_moe", "sinks", ".norms.")):
            continue
        if ".act_fn." in tensor_name:  # metadata
            continue
        stored = stored_name(tensor_name, family)
        if stored is None:
            continue
        values = as_converted(tensor, stored, config).float().numpy()
        if values.shape[0] == 1 and values.ndim == 2:
            values = values[0]
        kind = TYPES.F32
        if values.ndim == 2 and "inp" not in stored and "conv1d" not in stored:
            kind = quantised(stored) if callable(quantised) and not isinstance(quantised, TYPES) else quantised
        quantise = quantised_blocks if kind in BLOCKS else gguf.quantize
        writer.add_tensor(stored, quantise(values, kind), raw_dtype=kind)
    for other, numbers in {**(others or {}), **divisors(config)}.items():
        writer.add_tensor(other, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"), default=path)


def divisors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Tables of divisors of the rotary frequencies."""
    rope = config.get("rope_parameters") or {}
    if config["model_type"] == "gemma4_text":
        return {"rope_freqs.weight": gemma4_divisors(config)}
    if rope.get("rope_type") != "longrope":
        return {}
    return {f"rope_factors_{key}.weight": np.array(rope[f"{key}_factor"], np.float32) for key in ("long", "short")}


def xielu_metadata(checkpoint: Path) -> dict[str, Any]:
    """What the activations of Apertus have learned: no tensors, but a number for each layer."""
    tensors = load_file(checkpoint / "model.safetensors")
    layers = sum(name.endswith(".act_fn.alpha_p") for name in tensors)
    if not layers:
        return {}
    alphas = {
        f"xielu.{side}": [float(tensors[f"model.layers.{layer}.mlp.act_fn.{side}"]) for layer in range(layers)]
        for side in ("alpha_p", "alpha_n")
    }
    return {**alphas, "xielu.beta": [0.5] * layers, "xielu.eps": [-1e-6] * layers}


def stacked_experts(tensors: dict[str, torch.Tensor], family: str) -> dict[str, torch.Tensor]:
    """Experts and norms of heads, those of all in one tensor, and routers and sinks, which are named by themselves."""
    stacked: dict[str, torch.Tensor | list[torch.Tensor]] = {}
    mixtral = {"w1": "gate", "w3": "up", "w2": "down"}
    for name, tensor in tensors.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        block = f"blk.{layer[1]}." if layer else ""
        if one := re.search(r"experts\.\d+\.(\w+)\.weight$", name):
            part = mixtral.get(one[1], one[1].removesuffix("_proj"))
            stacked.setdefault(f"{block}ffn_{part}_exps.weight", []).append(
                (int(name.split("experts.")[1].split(".")[0]), tensor)
            )
        elif family == "gpt_oss" and "mlp.experts" in name:
            kind = "bias" if name.endswith("_bias") else "weight"
            turned = tensor if kind == "bias" else tensor.swapaxes(1, 2)
            parts = {"gate": turned[:, ::2], "up": turned[:, 1::2]} if "gate_up" in name else {"down": turned}
            stacked |= {f"{block}ffn_{part}_exps.{kind}": rows.contiguous() for part, rows in parts.items()}
        elif one := re.search(r"\.experts\.(\w+)_proj$", name):
            stacked[f"{block}ffn_{one[1]}_exps.weight"] = tensor
        elif one := re.search(r"\.(\w)_layernorm\.norms\.(\d+)\.weight$", name):
            stacked.setdefault(f"{block}attn_{one[1]}_norm.weight", []).append((int(one[2]), tensor))
        elif name.endswith("self_attn.sinks"):
            stacked[f"{block}attn_sinks.weight"] = tensor
        elif name.endswith("input_linear.weight"):
            gates, ups = tensor.chunk(2, dim=1)
            stacked |= {f"{block}ffn_gate_exps.weight": gates, f"{block}ffn_up_exps.weight": ups}
        elif name.endswith("output_linear.weight"):
            stacked[f"{block}ffn_down_exps.weight"] = tensor
        elif name.endswith(("block_sparse_moe.gate.weight", "router.layer.weight")):
            stacked[f"{block}ffn_gate_inp.weight"] = tensor
    return {
        name: torch.stack([rows for _, rows in sorted(value, key=lambda pair: pair[0])])
        if isinstance(value, list)
        else value
        for name, value in stacked.items()
    }


def stored_name(name: str, family: str) -> str | None:
    """A tensor's name in a GGUF file; None for the head of a model that shares its embedding's table."""
    stem, suffix = name.rsplit(".", 1)
    if suffix in BARE:
        return f"blk.{stem.split('.')[2]}.{BARE[suffix]}"
    stem = re.sub(r"^(gpt_neox|transformer)\.", "model.", stem)
    layer, _, part = re.sub(r"^model\.(layers|h)\.", "", stem).partition(".")
    names = {
        **NAMES,
        **(POST_NORMS if family in POST_NORMED else {}),
    }
    if family in ("gpt_oss", "glm4_moe", *DELTA):
        names["post_attention_layernorm"] = "post_attention_norm"
    if family == "glm4":
        names |= GLM4_NORMS
    return f"{names[stem]}.{suffix}" if stem in names else f"blk.{layer}.{names[part]}.{suffix}"


def as_converted(tensor: torch.Tensor, stored: str, config: dict[str, Any]) -> torch.Tensor:  # noqa: PLR0911  (a table)
    """What the converter makes of a tensor's values."""
    part = stored.removesuffix(".weight").removesuffix(".bias").split(".")[-1]
    match config["model_type"]:
        case (
            "llama"
            | "mistral"
            | "ministral3"
            | "mixtral"
            | "smollm3"
            | "granite"
            | "granitemoe"
            | "granitemoeshared"
            | "arcee"
            | "olmo"
        ):
            heads = {"attn_q": config["num_attention_heads"], "attn_k": config.get("num_key_value_heads")}
            return interleave(tensor, heads.get(part))
        case "gemma" | "gemma2" | "gemma3_text" if part.endswith("norm"):
            return tensor.float() + 1
        case "qwen3_5_text" | "qwen3_5_moe_text":
            return qwen3_5_as_converted(tensor, part, config)
        case "qwen3_next":
            return delta_as_converted(tensor, part)
        case "lfm2" | "lfm2_moe" if tensor.dim() == 3:
            return tensor.squeeze(1)
        case "gpt2" if tensor.dim() == 2 and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
            return tensor.T.contiguous()
        case "gpt_neox" if part == "attn_qkv":  # head by head; the file has all queries first
            heads = config["num_attention_heads"]
            return tensor.view(heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)
        case _:
            return tensor


def qwen3_5_as_converted(tensor: torch.Tensor, part: str, config: dict[str, Any]) -> torch.Tensor:
    """Value heads in the order in which key heads take turns, beside what qwen3_next has."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    behind_keys = 2 * keys * config["linear_key_head_dim"]

    def in_turns(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(0, (keys, values // keys, -1)).transpose(0, 1).reshape(rows.shape)

    tensor = delta_as_converted(tensor, part)
    if part in ("attn_qkv", "ssm_conv1d"):
        return torch.cat((tensor[:behind_keys], in_turns(tensor[behind_keys:])))
    if part in ("attn_gate", "ssm_alpha", "ssm_beta", "ssm_dt", "ssm_a"):
        return in_turns(tensor)
    if part == "ssm_out":
        return in_turns(tensor.T).T.contiguous()
    return tensor


def delta_as_converted(tensor: torch.Tensor, part: str) -> torch.Tensor:
    """Norms plus 1 but for that of the heads, and -exp(A)."""
    if part == "ssm_a":
        return -torch.exp(tensor.float())
    if part == "ssm_conv1d":
        return tensor.squeeze(1)
    return tensor.float() + 1 if part.endswith("norm") and part != "ssm_norm" else tensor


PLAIN = {
    "shared_mlp.output_linear": "mlp.shared_expert.down_proj",
    "mlp.shared_mlp.": "mlp.shared_expert.",
    "shared_experts.": "shared_expert.",
    "block_sparse_moe.e_score": "mlp.gate.e_score",
}


def plain_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Shared experts and biases of a choice by the same names in all families."""
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("shared_mlp.input_linear.weight"):
            for part, rows in zip(("gate", "up"), tensor.chunk(2), strict=True):
                plain[name.replace("shared_mlp.input_linear", f"mlp.shared_expert.{part}_proj")] = rows
        else:
            old = next((old for old in PLAIN if old in name), "")
            plain[name.replace(old, PLAIN[old]) if old else name] = tensor
    return plain


def fused_queries(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Queries, keys and values one below the other in one tensor."""
    fused: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        whole = re.sub(r"self_attn\.[qkv]_proj", "self_attn.qkv_proj", name)
        parts = [tensors[whole.replace("qkv_proj", f"{part}_proj")] for part in "qkv"] if whole != name else [tensor]
        fused[whole] = torch.cat(parts)
    return fused


def split_inputs(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The inputs of qwen3_next's recurrences, which lie key head by key head, in two tensors, kind by kind."""
    split = {}
    for name, tensor in tensors.items():
        if "in_proj_qkvz" not in name:
            split[name] = tensor
            continue
        heads, size = config["linear_num_key_heads"], config["linear_key_head_dim"]
        values = config["linear_num_value_heads"] // heads * config["linear_value_head_dim"]
        kinds = [rows.flatten(0, 1) for rows in tensor.unflatten(0, (heads, -1)).split((size, size, values, values), 1)]
        split[name.replace("qkvz", "qkv")] = torch.cat(kinds[:3])
        split[name.replace("qkvz", "z")] = kinds[3]
    return split


def interleave(rows: torch.Tensor, heads: int | None) -> torch.Tensor:
    """Rows of q and k in the order of llama.cpp's rotation: the two halves of a head woven together."""
    if heads is None:
        return rows
    first, second = rows.view(heads, 2, -1, *rows.shape[1:]).unbind(1)
    return torch.stack((first, second), dim=2).reshape(rows.shape)


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, list(value))


def random_blocks(kind: Any, rows: int, length: int) -> np.ndarray:
    """Random bytes in the shape of a quantised matrix, for types that the library reads but does not write."""
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(0).integers(0, 256, (rows, length // block * nbytes), np.uint8)


def quantised_blocks(values: np.ndarray, kind: Any) -> np.ndarray:
    """Random blocks in the shape of a matrix, whose numbers are about as large as the matrix's."""
    blocks = random_blocks(kind, *values.shape)
    places, largest = BLOCKS[kind]
    nbytes = gguf.GGML_QUANT_SIZES[kind][1]
    scale = np.array([3 * values.std() / largest], np.float16).view(np.uint8)
    for place in places:
        for byte in (0, 1):
            blocks.reshape(-1, nbytes)[:, place + byte] = scale[byte]
    return blocks
