"""Checkpoints whose tensors have other names or shapes than Llama's: which stored tensor holds which weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.blueprint import LAYER
from tokenglass.model.checkpoint.parts import Shape
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import DeltaNet

HEAD = "lm_head.weight"
NEOX_HEAD = "embed_out.weight"
Indices = NDArray[np.int64]
IN_ONE_TENSOR = re.compile(r"\.(\w+)\.experts\.down_proj$")
NUMBER = re.compile(r"\.\d+(?=\.|$)")  # of an expert, or of a head


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
    in_memory: Mapping[str, str] = field(default_factory=dict)  # transformers' modules: what its files call them


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a checkpoint and the weights it holds, with their shapes, by Llama's names."""

    name: str
    parts: Mapping[str, Shape]
    transposed: bool = False
    heads: int = 0  # not 0: the parts are interleaved by head
    experts: int = 0  # not 0: the parts are those of so many experts, one behind the other
    order: Indices | None = None  # of the rows, where ours have another

    @property
    def shape(self) -> Shape:
        if self.is_one:
            return next(iter(self.parts.values()))
        first, *rest = zip(*self.parts.values(), strict=True)
        shape = (sum(first), *(sizes[0] for sizes in rest))
        if self.experts:
            rows, columns = shape[0] // self.experts, shape[1:]
            return (self.experts, *columns, rows) if self.transposed else (self.experts, rows, *columns)
        return shape[::-1] if self.transposed else shape

    @property
    def is_one(self) -> bool:
        """Whether it is one weight, as it is."""
        return len(self.parts) == 1 and not (self.transposed or self.heads or self.experts) and self.order is None

    def cut(self, array: Array) -> dict[str, Array]:
        """The weights in it, as views; only what has another order of rows is copied."""
        if self.experts:
            return self.cut_experts(array)
        if self.transposed:
            array = array.T
        if self.order is not None:
            array = array[self.order]
        if self.heads:
            by_head = array.reshape(self.heads, len(self.parts), -1, *array.shape[1:])
            pieces = [by_head[:, part].reshape(-1, *array.shape[1:]) for part in range(len(self.parts))]
        else:
            ends = np.cumsum([shape[0] for shape in self.parts.values()])
            pieces = np.split(array, ends[:-1])
        return dict(zip(self.parts, pieces, strict=True))

    def cut_experts(self, array: Array) -> dict[str, Array]:
        """The same of one tensor of all experts."""
        if self.transposed:
            array = array.swapaxes(1, 2)
        each = len(self.parts) // self.experts
        rows = array.shape[1] // each
        places = [slice(p, None, each) if self.heads else slice(p * rows, (p + 1) * rows) for p in range(each)]
        pieces = [expert[place] for expert in array for place in places]
        return dict(zip(self.parts, pieces, strict=True))

    def join(self, weights: Mapping[str, Array]) -> Array:
        """The tensor whose `cut` gives these weights."""
        pieces = [weights[name] for name in self.parts]
        if self.experts:
            each = len(pieces) // self.experts
            experts = [pieces[first : first + each] for first in range(0, len(pieces), each)]
            array = np.stack(
                [weave(parts, len(parts[0])) if self.heads else np.concatenate(parts) for parts in experts]
            )
            return array.swapaxes(1, 2) if self.transposed else array
        array = weave(pieces, self.heads) if self.heads else np.concatenate(pieces)
        if self.order is not None:
            ordered, array = array, np.empty_like(array)
            array[self.order] = ordered
        return array.T if self.transposed else array


def weave(pieces: list[Array], count: int) -> Array:
    """Arrays of as many rows, the first of `count` equal parts of each, then the second of each, and so on."""
    parts = [piece.reshape(count, -1, *piece.shape[1:]) for piece in pieces]
    return np.concatenate(parts, axis=1).reshape(-1, *pieces[0].shape[1:])


QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PHI3 = Layout(modules={"self_attn.qkv_proj": QKV, "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")})
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
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
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
LAYOUTS = {
    "gemma4_text": GEMMA4,
    "gpt_oss": GPT_OSS,
    "mixtral": MIXTRAL,
    "granitemoe": GRANITE_MOE,
    "phi": PHI,
    "phi3": PHI3,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
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
    "cohere2": Layout(rotary="pairs"),
    "ernie4_5": Layout(rotary="pairs"),
}


def stored_tensors(
    config: ModelConfig, weights: Mapping[str, Shape], present: Collection[str] | None = None
) -> list[Stored]:
    """What a checkpoint must hold for these weights; `present` names what it holds, for files without a prefix.

    Without `present`, the names are those that transformers writes.
    """
    layout = layout_of(config, present)
    module_of = {part: module for module, parts in layout.modules.items() for part in parts}
    shapes_of: dict[str, dict[str, Shape]] = {}
    modules: dict[str, str] = {}
    for name, shape in weights.items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith(LAYER):
            number, _, part = stem.removeprefix(LAYER).partition(".")
            module = module_of.get(part, part)
            if numbered := NUMBER.search(part):
                module = module_of.get(NUMBER.sub(".*", part), part).replace(".*", numbered[0])
            end = ("" if kind == "weight" else f"_{kind}") if module in layout.stacked else f".{kind}"
            place = f"{number}.{module}" if module else number  # some weights stand in the layer itself
            stored = f"{layout.layer}{place}{end}"
            modules[stored] = module
        else:
            stored = f"{layout.outer.get(stem, stem)}.{kind}"
        shapes_of.setdefault(stored, {})[name] = shape
    return [
        Stored(
            stored if present is None else find_spelling(stored, present, layout),
            parts,
            transposed=modules.get(stored) in layout.transposed and not stored.endswith("bias"),
            heads=interleaving(config, layout, modules.get(stored), parts),
            experts=config.mixture.count if config.mixture and modules.get(stored) in layout.stacked else 0,
            order=row_order(config, layout, modules[stored], parts) if stored in modules else None,
        )
        for stored, parts in shapes_of.items()
    ]


def layout_of(config: ModelConfig, present: Collection[str] | None) -> Layout:
    """The family's own; of experts in one tensor, where the files hold them as transformers has them in memory."""
    layout = family_layout(config)
    if config.mixture is None or layout.stacked or present is None:
        return layout
    module = next((match[1] for name in present if (match := IN_ONE_TENSOR.search(name))), None)
    if module is None:
        return layout
    stacked = {f"{module}.{name.removeprefix('mlp.')}": parts for name, parts in STACKED.items()}
    return replace(layout, modules={**layout.modules, **stacked}, stacked=frozenset(stacked))


def family_layout(config: ModelConfig) -> Layout:
    if config.model_type == "lfm3" and not config.post_norm:
        return LFM3_ALONE
    return LAYOUTS.get(config.model_type, Layout())


def interleaving(config: ModelConfig, layout: Layout, module: str | None, parts: Mapping[str, Shape]) -> int:
    """How many times the parts of a module stand one behind the other: by head, or by row of each expert."""
    if module not in layout.interleaved:
        return 0
    return next(iter(parts.values()))[0] if module in layout.stacked else config.num_heads


def row_order(config: ModelConfig, layout: Layout, module: str, parts: Mapping[str, Shape]) -> Indices | None:
    """The stored rows in our order, in which the two halves of a head of queries or keys rotate together, and those of
    each kind lie together in what enters a recurrence."""
    delta = next((kind.delta for kind in config.layers if kind.delta is not None), None)
    if delta is not None and module in (QKVZ, STRENGTH_DECAY):
        return order_of_recurrence(delta, module)
    rope = next((kind.rope for kind in config.layers if kind.rope is not None), None)
    if layout.rotary == "halves" or rope is None or module not in QKV[:2]:
        return None
    ((rows, *_),) = parts.values()
    return order_of_heads(rows, config.head_dim, rope.dim, layout.rotary)


def order_of_heads(rows: int, head_dim: int, rotary_dim: int, rotary: Literal["pairs", "swapped"]) -> Indices:
    """The stored row of each of ours, of heads whose first `rotary_dim` numbers lie so."""
    turning, still = np.arange(rotary_dim), np.arange(rotary_dim, head_dim)
    turned = turning.reshape(-1, 2).T if rotary == "pairs" else turning.reshape(2, -1)[::-1]
    within = np.concatenate((turned.reshape(-1), still))
    return np.arange(rows).reshape(-1, head_dim)[:, within].reshape(-1)


def order_of_recurrence(delta: DeltaNet, module: str) -> Indices:
    """The stored row of each of ours, of QKVZ or STRENGTH_DECAY."""
    shared = delta.value_heads // delta.key_heads
    values = shared * delta.value_dim
    widths = (delta.key_dim, delta.key_dim, values, values) if module == QKVZ else (shared, shared)
    return order_of_key_heads(delta.key_heads, widths)


def order_of_key_heads(heads: int, widths: Sequence[int]) -> Indices:
    """The stored row of each of ours, of heads that each have so many rows of every kind."""
    stored = np.arange(heads * sum(widths)).reshape(heads, -1)
    return np.concatenate([rows.reshape(-1) for rows in np.split(stored, np.cumsum(widths)[:-1], axis=1)])


def spelling_of(name: str, present: Collection[str], config: ModelConfig) -> str:
    """What these files call a tensor that transformers calls so."""
    return find_spelling(name, present, family_layout(config))


def find_spelling(name: str, present: Collection[str], layout: Layout) -> str:
    """The name as these files spell it. A base model saved alone has no prefix, as the first files of gpt2 have none,
    and a head may have one: transformers takes either, and a module's name in memory, too. gpt_neox may call its head
    lm_head."""
    prefix = layout.layer.partition(".")[0] + "."
    other = name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
    spellings = [name, other, *([HEAD] if name == NEOX_HEAD else [])]
    for pair in layout.in_memory.items():
        for one, another in (pair, pair[::-1]):
            spellings += [each.replace(f".{one}.", f".{another}.") for each in (name, other)]
    missing = name if any(held.startswith(prefix) for held in present) else name.removeprefix(prefix)
    return next((spelling for spelling in spellings if spelling in present), missing)
