"""The compact causal transformer. Attribute names are those of Llama checkpoints (others:
see model/checkpoint/layouts.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.torch_engine.attention import Sight, attend, sight
from tokenglass.model.torch_engine.rope import rotary_table, rotate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class Norm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), computed in float32, or LayerNorm
    (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, config: ModelConfig, size: int):
        super().__init__()
        self.kind = config.norm
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.zeros(size) if self.kind == "rms_plus_one" else torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if self.kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        shape = self.weight.shape
        if self.kind == "layer":
            return F.layer_norm(x, shape, self.weight, self.bias, self.eps)
        if self.kind == "rms":
            return self.weight * F.rms_norm(x.float(), shape, eps=self.eps).to(x.dtype)
        weight = self.weight.float() + (self.kind == "rms_plus_one")
        return F.rms_norm(x.float(), shape, weight, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), by the layer's kind with rotary positions."""

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        self.config = config
        self.kind = kind
        query_size = config.num_heads * config.head_dim
        kv_size = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=config.o_bias)
        if config.qk_norm is not None:
            whole = config.qk_norm == "projection"
            self.q_norm = Norm(config, query_size if whole else config.head_dim)
            self.k_norm = Norm(config, kv_size if whole else config.head_dim)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.config.qk_norm is not None:
            query, key = normalised(query, self.q_norm), normalised(key, self.k_norm)
        query, key, value = self.heads(query), self.heads(key), self.heads(value)
        if self.kind.rope is not None:
            rotary = view.rotary(self.kind.rope, x.dtype)
            query, key = rotate(query, rotary), rotate(key, rotary)
        if view.cache is not None:
            key, value = view.cache.write(layer, key, value, view.positions)
        seen = view.sight(self.kind.window)
        mixed = attend(query, key, value, seen, self.config.attention_scale, self.config.attention_softcap)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def heads(self, x: Tensor) -> Tensor:
        """(batch, length, heads * head_dim) to (batch, heads, length, head_dim)."""
        return x.view(*x.shape[:2], -1, self.config.head_dim).transpose(1, 2)


def normalised(x: Tensor, norm: Norm) -> Tensor:
    """A norm over each stretch of its own size of x (batch, length, heads * head_dim)."""
    return norm(x.view(*x.shape[:2], -1, len(norm.weight))).view(x.shape)


class MLP(nn.Module):
    """Feed-forward, gated (SwiGLU and its kin, Shazeer 2020, arXiv 2002.05202) or plain."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.gated = config.gated_mlp
        if self.gated:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(self.activation(self.up_proj(x)))


class Block(nn.Module):
    """One layer: attention, then the feed-forward, each added to the residual stream.

    post_attention_layernorm is, as in the checkpoints, the norm before the MLP; with post norms, that after attention.
    """

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        self.post_norm = config.post_norm
        self.parallel = config.parallel_residual
        norm = partial(Norm, config, config.hidden_size)
        self.input_layernorm = norm() if config.pre_norm else nn.Identity()
        self.self_attn = Attention(config, kind)
        self.post_attention_layernorm = norm()
        if self.post_norm:
            self.pre_feedforward_layernorm = norm() if config.pre_norm else nn.Identity()
            self.post_feedforward_layernorm = norm()
        self.mlp = MLP(config)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x), layer, view)
        if self.parallel:
            return x + attended + self.mlp(self.post_attention_layernorm(x))
        if self.post_norm:
            x = x + self.post_attention_layernorm(attended)
            return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers and final norm: token ids (batch, length) to hidden states (batch, length, hidden)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = blank_embedding(config.vocab_size, config.hidden_size)
        if config.learned_positions:
            self.embed_positions = blank_embedding(config.max_positions, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, kind) for kind in config.layers)
        self.norm = Norm(config, config.hidden_size)

    def forward(self, token_ids: Tensor, view: PassView) -> Tensor:
        x = self.embed_tokens(token_ids)
        if self.config.learned_positions:
            x = x + self.embed_positions(view.positions)
        if self.config.embedding_scale is not None:  # rounded to the dtype, as it was in training
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype, device=x.device)
        for layer, block in enumerate(self.layers):
            x = block(x, layer, view)
        return self.norm(x)


def blank_embedding(rows: int, size: int) -> nn.Embedding:
    """An embedding to be filled: nn.Embedding's own random numbers, drawn without memory, import torch's compiler."""
    return nn.Embedding(rows, size, _weight=torch.zeros(rows, size))


class Transformer(nn.Module):
    """A causal language model: token ids in, one distribution over the next token per position out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        token_ids: Tensor,
        cache: KVCache | None = None,
        *,
        last: bool = False,
        planned_length: int | None = None,
        block: int = 0,
        hide: Tensor | None = None,
    ) -> Tensor:
        """Logits (batch, length, vocab), or (batch, 1, vocab) with `last`.

        With a cache, `token_ids` continue every row of it, and their keys and values are added to it.
        `planned_length` is the length the whole run may reach, by which some ropes choose their factors; without it,
        the length of `token_ids`. A cache brings its own. The last `block` ids form a block whose positions see each
        other, whatever their order. `hide` (batch, positions) is true where the ids of a row may not look.
        """
        hidden = self.model(token_ids, PassView(token_ids, cache, planned_length, block, hide))
        if cache is not None:
            cache.advance(token_ids, block=block)
        logits = self.lm_head(hidden[:, -1:] if last else hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


class PassView:
    """What the layers of one forward pass share: positions, rotary tables, and what may be looked at."""

    def __init__(
        self,
        token_ids: Tensor,
        cache: KVCache | None,
        planned_length: int | None,
        block: int = 0,
        hide: Tensor | None = None,
    ):
        batch, length = token_ids.shape
        self.cache = cache
        self.block = block
        self.hide = hide
        self.length = length
        self.tables: dict[Rope, tuple[Tensor, Tensor]] = {}
        self.sights: dict[int | None, Sight] = {}
        if cache is None:
            self.positions = torch.arange(length, device=token_ids.device).expand(batch, length)
            self.planned_length = length if planned_length is None else planned_length
        else:
            cache.reserve(length)
            self.positions = cache.next_positions(length)  # (batch, length)
            self.planned_length = cache.planned_length

    def rotary(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, 1, length, rope.dim)."""
        if rope not in self.tables:
            self.tables[rope] = rotary_table(rope, self.positions, self.planned_length, dtype)
        return self.tables[rope]

    def sight(self, window: int | None) -> Sight:
        """What layers with this window see."""
        if window not in self.sights:
            starts, slots, uniform = [0] * len(self.positions), self.length, True
            if self.cache is not None:
                starts, slots, uniform = self.cache.read_by(window, self.length)
            self.sights[window] = sight(
                self.positions, starts, slots, window, uniform=uniform, block=self.block, hide=self.hide
            )
        return self.sights[window]
