"""What each family calls the tensors of its checkpoints, for those that differ from Llama's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tokenglass.model.checkpoint.blueprint import LAYER
from tokenglass.model.config.config import ModelConfig

NEOX_HEAD = "embed_out.weight"


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of a family's checkpoints, for those that differ from Llama's; modules are named without .weight, .bias."""

    layer: str = LAYER
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # stored: Llama's, one below the other
    outer: Mapping[str, str] = field(default_factory=dict)  # outside of the layers
    transposed: frozenset[str] = frozenset()  # stored as (in, out)
    interleaved: frozenset[str] = frozenset()  # stored head by head, each with its queries, keys and values; or by row
    stacked: frozenset[str] = frozenset()  # one tensor of all experts' (experts, out, in), named without .weight
    rotary: Literal["halves", "pairs", "swapped"] = "halves"  # how a head's numbers that rotate together lie
    bare: Mapping[str, str] = field(default_factory=dict)  # Llama's weights that are no modules': stored
    in_memory: Mapping[str, str] = field(default_factory=dict)  # transformers' modules: what its files call them


FUSED_UP = {"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PHI3 = Layout(modules={"self_attn.qkv_proj": QKV, **FUSED_UP})
GPT2 = Layout(
    layer="transformer.h.",
    modules={
        "ln_1": ("input_layernorm",),
        "attn.c_attn": QKV,
        "attn.c_proj": ("self_attn.o_proj",),
        "ln_2": ("post_attention_layernorm",),
        "mlp.c_fc": ("mlp.up_proj",),
        "mlp.c_proj": ("mlp.down_proj",),
    },
    outer={
        "model.embed_tokens": "transformer.wte",
        "model.embed_positions": "transformer.wpe",
        "model.norm": "transformer.ln_f",
    },
    transposed=frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
)
GPT_NEOX = Layout(
    layer="gpt_neox.layers.",
    modules={
        "attention.query_key_value": QKV,
        "attention.dense": ("self_attn.o_proj",),
        "mlp.dense_h_to_4h": ("mlp.up_proj",),
        "mlp.dense_4h_to_h": ("mlp.down_proj",),
    },
    outer={
        "model.embed_tokens": "gpt_neox.embed_in",
        "model.norm": "gpt_neox.final_layer_norm",
        "lm_head": NEOX_HEAD.removesuffix(".weight"),
    },
    interleaved=frozenset({"attention.query_key_value"}),
)
PHI = Layout(
    modules={
        "self_attn.dense": ("self_attn.o_proj",),
        "self_attn.q_layernorm": ("self_attn.q_norm",),
        "self_attn.k_layernorm": ("self_attn.k_norm",),
        "mlp.fc1": ("mlp.up_proj",),
        "mlp.fc2": ("mlp.down_proj",),
    },
    outer={"model.norm": "model.final_layernorm"},
)
GLM4 = Layout(
    modules={
        **FUSED_UP,
        "post_self_attn_layernorm": ("post_attention_layernorm",),
        "post_attention_layernorm": ("pre_feedforward_layernorm",),
        "post_mlp_layernorm": ("post_feedforward_layernorm",),
    },
    rotary="pairs",
)
STABLELM = Layout(
    modules={
        "self_attn.q_layernorm.norms.*": ("self_attn.q_norm.norms.*",),
        "self_attn.k_layernorm.norms.*": ("self_attn.k_norm.norms.*",),
    }
)
APERTUS = Layout(
    modules={
        "attention_layernorm": ("input_layernorm",),
        "feedforward_layernorm": ("post_attention_layernorm",),
    }
)
HUNYUAN = Layout(
    modules={
        "self_attn.query_layernorm": ("self_attn.q_norm",),
        "self_attn.key_layernorm": ("self_attn.k_norm",),
    }
)
EXPERT = "mlp.experts.*"  # * stands for a number
LFM2 = Layout(
    modules={
        "operator_norm": ("input_layernorm",),
        "ffn_norm": ("post_attention_layernorm",),
        "self_attn.q_layernorm": ("self_attn.q_norm",),
        "self_attn.k_layernorm": ("self_attn.k_norm",),
        "self_attn.out_proj": ("self_attn.o_proj",),
        "conv.in_proj": ("conv.before_proj", "conv.after_proj", "conv.middle_proj"),
        "feed_forward.w1": ("mlp.gate_proj",),
        "feed_forward.w3": ("mlp.up_proj",),
        "feed_forward.w2": ("mlp.down_proj",),
    },
    outer={"model.norm": "model.embedding_norm"},
)
LFM2_MOE = replace(
    LFM2,
    modules={
        **LFM2.modules,
        "feed_forward": ("mlp",),
        "feed_forward.gate": ("mlp.gate",),
        "feed_forward.experts.*.w1": (f"{EXPERT}.gate_proj",),
        "feed_forward.experts.*.w3": (f"{EXPERT}.up_proj",),
        "feed_forward.experts.*.w2": (f"{EXPERT}.down_proj",),
    },
)
LFM3_ALONE = Layout(  # without norms after attention and MLP
    modules={module: parts for module, parts in LFM2.modules.items() if not module.startswith("self_attn.")},
    outer=LFM2.outer,
    in_memory={"self_attn.g_proj": "self_attn.gate_proj"},
)
LFM3 = replace(
    LFM3_ALONE,
    modules={
        **LFM3_ALONE.modules,
        "post_operator_norm": ("post_attention_layernorm",),
        "ffn_norm": ("pre_feedforward_layernorm",),
        "post_ffn_norm": ("post_feedforward_layernorm",),
    },
)
QWEN3_5 = Layout(
    modules={"self_attn.q_proj": ("self_attn.q_proj", "self_attn.gate_proj")},
    interleaved=frozenset({"self_attn.q_proj"}),
)
# Stored head by head, each key head with what belongs to the value heads that it serves
QKVZ, STRENGTH_DECAY = "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"
QWEN3_NEXT = replace(
    QWEN3_5,
    modules={
        **QWEN3_5.modules,
        QKVZ: ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
        STRENGTH_DECAY: ("linear_attn.in_proj_b", "linear_attn.in_proj_a"),
    },
)
NANOCHAT = Layout(modules={"mlp.fc1": ("mlp.up_proj",), "mlp.fc2": ("mlp.down_proj",)}, rotary="swapped")
STACKED = {
    "mlp.experts.gate_up_proj": (f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj"),
    "mlp.experts.down_proj": (f"{EXPERT}.down_proj",),
}
MIXTRAL = Layout(
    modules={
        "block_sparse_moe.gate": ("mlp.gate",),
        "block_sparse_moe.experts.*.w1": (f"{EXPERT}.gate_proj",),
        "block_sparse_moe.experts.*.w3": (f"{EXPERT}.up_proj",),
        "block_sparse_moe.experts.*.w2": (f"{EXPERT}.down_proj",),
    }
)
GRANITE_MOE = Layout(
    modules={
        "block_sparse_moe.router.layer": ("mlp.gate",),
        "block_sparse_moe.input_linear.weight": (f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj"),
        "block_sparse_moe.output_linear.weight": (f"{EXPERT}.down_proj",),
    },
    stacked=frozenset({"block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"}),
)
GPT_OSS = Layout(
    modules={"mlp.router": ("mlp.gate",), **STACKED},
    stacked=frozenset(STACKED),
    interleaved=frozenset(STACKED),
    transposed=frozenset(STACKED),
)
GEMMA4 = Layout(
    modules={
        "router": ("mlp.routed",),
        "router.proj": ("mlp.routed.gate",),
        "post_feedforward_layernorm_1": ("mlp.after_dense",),
        "pre_feedforward_layernorm_2": ("mlp.before_experts",),
        "post_feedforward_layernorm_2": ("mlp.after_experts",),
        "experts.gate_up_proj": tuple(f"mlp.routed.experts.*.{part}_proj" for part in ("gate", "up")),
        "experts.down_proj": ("mlp.routed.experts.*.down_proj",),
    },
    stacked=frozenset({"experts.gate_up_proj", "experts.down_proj"}),
)
SHARED = {f"mlp.shared_experts.{part}_proj": (f"mlp.shared_expert.{part}_proj",) for part in ("gate", "up", "down")}
SIGMOID_MOE = Layout(modules=SHARED, bare={"mlp.expert_bias": "mlp.gate.e_score_correction_bias"})
LAYOUTS = {
    "helium": Layout(rotary="pairs"),
    "vaultgemma": Layout(modules={"pre_feedforward_layernorm": ("post_attention_layernorm",)}),
    "exaone": Layout(
        layer="transformer.h.",
        modules={
            "ln_1": ("input_layernorm",),
            "ln_2": ("post_attention_layernorm",),
            **{f"attn.attention.{part}_proj": (f"self_attn.{part}_proj",) for part in "qkv"},
            "attn.attention.out_proj": ("self_attn.o_proj",),
            "mlp.c_fc_0": ("mlp.gate_proj",),
            "mlp.c_fc_1": ("mlp.up_proj",),
            "mlp.c_proj": ("mlp.down_proj",),
        },
        outer={"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f"},
    ),
    "glm4_moe": SIGMOID_MOE,
    "dots1": SIGMOID_MOE,
    "solar_open": SIGMOID_MOE,
    "minimax_m2": replace(MIXTRAL, bare={"mlp.expert_bias": "block_sparse_moe.e_score_correction_bias"}),
    "hunyuan_v1_moe": replace(
        HUNYUAN,
        modules={
            **HUNYUAN.modules,
            "mlp.gate.wg": ("mlp.gate",),
            **{f"mlp.shared_mlp.{part}_proj": (f"mlp.shared_expert.{part}_proj",) for part in ("gate", "up", "down")},
        },
    ),
    "granitemoeshared": replace(
        GRANITE_MOE,
        modules={
            **GRANITE_MOE.modules,
            "shared_mlp.input_linear": ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
            "shared_mlp.output_linear": ("mlp.shared_expert.down_proj",),
        },
    ),
    "gemma4_text": GEMMA4,
    "gpt_oss": GPT_OSS,
    "mixtral": MIXTRAL,
    "granitemoe": GRANITE_MOE,
    "phi": PHI,
    "phi3": PHI3,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "glm": Layout(modules=FUSED_UP, rotary="pairs"),
    "glm4": GLM4,
    "lfm2": LFM2,
    "lfm2_moe": LFM2_MOE,
    "lfm3": LFM3,
    "qwen3_5_text": QWEN3_5,
    "qwen3_5_moe_text": QWEN3_5,
    "qwen3_next": QWEN3_NEXT,
    "stablelm": STABLELM,
    "apertus": APERTUS,
    "hunyuan_v1_dense": HUNYUAN,
    "nanochat": NANOCHAT,
    "starcoder2": Layout(modules={"mlp.c_fc": ("mlp.up_proj",), "mlp.c_proj": ("mlp.down_proj",)}),
    "cohere": Layout(rotary="pairs"),
    "cohere2": Layout(rotary="pairs"),
    "ernie4_5": Layout(rotary="pairs"),
}


def family_layout(config: ModelConfig) -> Layout:
    """What a family calls its tensors."""
    if config.model_type == "lfm3" and not config.post_norm:
        return LFM3_ALONE
    return LAYOUTS.get(config.model_type, Layout())
