"""The compact causal transformer. Attribute names are those of Llama checkpoints (others:
see model/checkpoint/layouts.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.checkpoint import blueprint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import CacheRow
from tokenglass.model.torch_engine.attention import Sight, attend, sight
from tokenglass.model.torch_engine.delta import GatedDeltaNet
from tokenglass.model.torch_engine.modules import Norm, linear
from tokenglass.model.torch_engine.rope import rotary_cosines, rotate
from tokenglass.model.torch_engine.storage import TensorCache, write, write_inputs

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class Scale(nn.Module):
    """Every number times the same factor."""

    def __init__(self, spec: blueprint.Scaling):
        super().__init__()
        self.factor = spec.factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Xielu(nn.Module):
    """A learned activation; see blueprint.Xielu."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha_p, self.alpha_n = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        above = F.softplus(self.alpha_p) * x.square()
        below = (0.5 + F.softplus(self.alpha_n)) * (torch.expm1(x.clamp(max=0)) - x)
        return torch.where(x > 0, above, below) + 0.5 * x


def embedding(spec: blueprint.Table) -> nn.Embedding:
    """To be filled: nn.Embedding's own random numbers, drawn without memory, import torch's compiler."""
    return nn.Embedding(spec.rows, spec.size, _weight=torch.zeros(spec.rows, spec.size))


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), by the layer's kind with rotary positions."""

    def __init__(self, spec: blueprint.Attention):
        super().__init__()
        self.spec = spec
        self.q_proj, self.k_proj, self.v_proj = linear(spec.query), linear(spec.key), linear(spec.value)
        self.o_proj = linear(spec.output)
        self.sinks = None if spec.sinks is None else nn.Parameter(torch.zeros(spec.sinks.heads))
        if spec.gate is not None:
            self.gate_proj = linear(spec.gate)
        if spec.query_norm is not None and spec.key_norm is not None:
            self.q_norm, self.k_norm = Norm(spec.query_norm), Norm(spec.key_norm)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        query, key, value = self.queries(x, view), self.keys(x, view), self.heads(self.v_proj(x))
        mixed = view.attend(layer, self.spec, query, key, value, self.sinks)
        mixed = mixed.transpose(1, 2).flatten(2)
        return self.o_proj(mixed if self.spec.gate is None else mixed * torch.sigmoid(self.gate_proj(x)))

    def queries(self, x: Tensor, view: PassView) -> Tensor:
        """What is compared with keys, (batch, heads, length, head_dim), of x (batch, length, hidden)."""
        query = self.turned(self.q_proj(x), self.q_norm if self.spec.query_norm else None, view)
        growth = self.spec.growth
        if growth is None:
            return query
        times = 1 + growth.beta * torch.log1p(torch.floor(view.positions / growth.trained_positions))
        return query * times[:, None, :, None].to(query.dtype)

    def keys(self, x: Tensor, view: PassView) -> Tensor:
        """What queries are compared with, (batch, kv_heads, length, head_dim)."""
        return self.turned(self.k_proj(x), self.k_norm if self.spec.key_norm else None, view)

    def turned(self, x: Tensor, norm: Norm | None, view: PassView) -> Tensor:
        """Projected queries or keys, normalised and rotated, in the order that the family has."""
        spec = self.spec
        if norm is not None and not spec.rotate_first:
            x = normalise(x, norm)
        x = self.heads(x)
        if spec.rope is not None:
            x = rotate(x, view.rotary(spec.rope, x.dtype))
        return norm(x) if norm is not None and spec.rotate_first else x

    def heads(self, x: Tensor) -> Tensor:
        """(batch, length, heads * head_dim) to (batch, heads, length, head_dim)."""
        return x.view(*x.shape[:2], -1, self.spec.head_dim).transpose(1, 2)


class ShortConvolution(nn.Module):
    """A gated short convolution; see blueprint.ShortConvolution."""

    def __init__(self, spec: blueprint.ShortConvolution):
        super().__init__()
        kernel = spec.kernel
        self.before_proj, self.after_proj, self.middle_proj = map(linear, spec.inputs)
        self.conv = nn.Conv1d(kernel.channels, kernel.channels, kernel.taps, groups=kernel.channels, bias=kernel.bias)
        self.out_proj = linear(spec.output)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        convolved = view.convolve(layer, self.before_proj(x) * self.middle_proj(x), self.conv)
        return self.out_proj(self.after_proj(x) * convolved)


def normalise(x: Tensor, norm: Norm) -> Tensor:
    """A norm over each stretch of its own size of x (batch, length, heads * head_dim)."""
    return norm(x.view(*x.shape[:2], -1, norm.size)).view(x.shape)


class MLP(nn.Module):
    """Feed-forward, gated (SwiGLU and its kin, Shazeer 2020, arXiv 2002.05202) or plain."""

    def __init__(self, spec: blueprint.FeedForward):
        super().__init__()
        self.act_fn = ACTIVATIONS[spec.activation] if spec.learned is None else Xielu()
        self.gated, self.swiglu = spec.gate is not None, spec.swiglu
        if spec.gate is not None:
            self.gate_proj = linear(spec.gate)
        self.up_proj = linear(spec.up)
        self.down_proj = linear(spec.down)

    @property
    def bias(self) -> Tensor | None:
        """What it gives beside anything else."""
        bias: Tensor | None = self.down_proj.bias
        return bias

    def forward(self, x: Tensor) -> Tensor:
        if self.swiglu is not None:
            limit, gate = self.swiglu.limit, self.gate_proj(x).clamp(max=self.swiglu.limit)
            up = self.up_proj(x).clamp(-limit, limit)
            return self.down_proj((up + 1) * gate * torch.sigmoid(gate * self.swiglu.alpha))
        if self.gated:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(self.act_fn(self.up_proj(x)))


class Experts(nn.Module):
    """A mixture of experts: each is computed for the positions that chose it; see blueprint.Experts."""

    bias = None  # no family's experts have one

    def __init__(self, spec: blueprint.Experts):
        super().__init__()
        self.chosen, self.renormalise = spec.chosen, spec.renormalise
        self.taken: tuple[Tensor, Tensor] | None = None  # experts and probabilities of the last pass
        self.gate = linear(spec.router)
        self.experts = nn.ModuleList(MLP(expert) for expert in spec.experts)
        if spec.shared is not None and spec.shared_router is not None:
            self.shared_expert, self.shared_expert_gate = MLP(spec.shared), linear(spec.shared_router)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        weights, chosen = self.route(flat)
        mixed = torch.zeros_like(flat)
        for number in sorted(set(chosen.flatten().tolist())):
            rows, place = torch.where(chosen == number)
            mixed.index_add_(0, rows, self.experts[number](flat[rows]) * weights[rows, place, None].to(x.dtype))
        if hasattr(self, "shared_expert"):
            mixed = mixed + torch.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return mixed.view(x.shape)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and the numbers of the experts that each position of x (positions, hidden) takes, both
        (positions, chosen), the most probable first."""
        probs = self.gate(x).softmax(-1, dtype=torch.float32)
        weights, chosen = probs.topk(self.chosen, dim=-1)
        self.taken = chosen, weights
        return (weights / weights.sum(-1, keepdim=True) if self.renormalise else weights), chosen


class Block(nn.Module):
    """One layer: the mixer, then the feed-forward, each added to the residual stream.

    Its norms have the checkpoints' names, by which blueprint.py tells where each of them stands.
    """

    def __init__(self, spec: blueprint.Layer):
        super().__init__()
        self.parallel = spec.parallel
        if isinstance(spec.mixer, blueprint.ShortConvolution):
            self.conv = ShortConvolution(spec.mixer)
        elif isinstance(spec.mixer, blueprint.GatedDeltaNet):
            self.linear_attn = GatedDeltaNet(spec.mixer)
        else:
            self.self_attn = Attention(spec.mixer)
        self.mlp: MLP | Experts = Experts(spec.mlp) if isinstance(spec.mlp, blueprint.Experts) else MLP(spec.mlp)
        self.names: list[str | None] = []
        for norm in spec.norms:
            name = None
            if isinstance(norm, blueprint.Normalisation):  # one that stands at two places is one module
                name = norm.name.rpartition(".")[2]
                self.add_module(name, Norm(norm))
            elif norm is not None:
                name = "residual_scale"
                self.add_module(name, Scale(norm))
            self.names.append(name)

    @property
    def mixer(self) -> Attention | ShortConvolution | GatedDeltaNet:
        name = next(name for name in ("self_attn", "conv", "linear_attn") if hasattr(self, name))
        mixer: Attention | ShortConvolution | GatedDeltaNet = getattr(self, name)
        return mixer

    @property
    def before_mixer(self) -> nn.Module:
        return self.norm(0)

    @property
    def after_mixer(self) -> nn.Module:
        return self.norm(1)

    @property
    def before_mlp(self) -> nn.Module:
        return self.norm(2)

    @property
    def after_mlp(self) -> nn.Module:
        return self.norm(3)

    def norm(self, place: int) -> nn.Module:
        """The norm at one of the four places; one that does nothing where there is none."""
        name = self.names[place]
        return nn.Identity() if name is None else self.get_submodule(name)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        mixed = x + self.after_mixer(self.mixer(self.before_mixer(x), layer, view))
        return mixed + self.after_mlp(self.mlp(self.before_mlp(x if self.parallel else mixed)))


class Decoder(nn.Module):
    """Embedding, layers and final norm: token ids (batch, length) to hidden states (batch, length, hidden)."""

    def __init__(self, spec: blueprint.Blueprint):
        super().__init__()
        self.scale = spec.config.embedding_scale
        self.embed_tokens = embedding(spec.embedding)
        self.embed_positions = None if spec.positions is None else embedding(spec.positions)
        self.embed_norm = None if spec.embedding_norm is None else Norm(spec.embedding_norm)
        self.layers = nn.ModuleList(Block(layer) for layer in spec.layers)
        self.norm = Norm(spec.norm)

    def forward(self, token_ids: Tensor, view: PassView) -> Tensor:
        x = self.embed_tokens(token_ids)
        if self.embed_positions is not None:
            x = x + self.embed_positions(view.positions)
        if self.scale is not None:  # rounded to the dtype, as it was in training
            x = x * torch.full((), self.scale, dtype=x.dtype, device=x.device)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        for layer, block in enumerate(self.layers):
            x = block(x, layer, view)
        return self.norm(x)


class Transformer(nn.Module):
    """A causal language model: token ids in, one distribution over the next token per position out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.blueprint = blueprint.Blueprint.of(config)
        self.model = Decoder(self.blueprint)
        self.lm_head = linear(self.blueprint.head)
        if self.blueprint.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        token_ids: Tensor,
        cache: TensorCache | None = None,
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
        if cache is None:
            hidden = self.model(token_ids, PassView(token_ids, planned_length, block, hide))
        else:
            hidden = self.go_on(token_ids.tolist(), cache, [block] * len(token_ids))
            hidden = hidden.view(*token_ids.shape, -1)
        return self.logits(hidden[:, -1:] if last else hidden)

    def go_on(self, token_ids: Sequence[Sequence[int]], cache: TensorCache, blocks: Sequence[int]) -> Tensor:
        """Hidden states (positions of all rows, hidden) of ids that continue the rows, each with its own number."""
        view = RowsView(cache, [len(ids) for ids in token_ids], blocks)
        flat = torch.tensor([[token_id for ids in token_ids for token_id in ids]], device=cache.device)
        hidden: Tensor = self.model(flat, view)[0]
        cache.advance(token_ids, blocks)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocab) of hidden states (..., hidden)."""
        logits = self.uncapped_logits(hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def uncapped_logits(self, hidden: Tensor) -> Tensor:
        """The same before a final soft cap."""
        logits: Tensor = self.lm_head(hidden)
        scale = self.config.logit_scale
        return logits if scale is None else logits * scale


class PassView:
    """What the layers of one forward pass share: positions, rotary tables, and what may be looked at."""

    def __init__(
        self, token_ids: Tensor, planned_length: int | None = None, block: int = 0, hide: Tensor | None = None
    ):
        batch, length = token_ids.shape
        self.block = block
        self.hide = hide
        self.tables: dict[Rope, tuple[Tensor, Tensor]] = {}
        self.sights: dict[int | None, Sight] = {}
        self.positions = torch.arange(length, device=token_ids.device).expand(batch, length)
        self.planned_length = length if planned_length is None else planned_length

    def rotary(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, 1, length, rope.dim)."""
        if rope not in self.tables:
            self.tables[rope] = rotary_cosines(rope, self.positions, self.planned_length, dtype)
        return self.tables[rope]

    def sight(self, window: int | None) -> Sight:
        """What layers with this window see."""
        if window not in self.sights:
            slots = self.positions.shape[1]
            self.sights[window] = sight(self.positions, 0, slots, window, block=self.block, hide=self.hide)
        return self.sights[window]

    def attend(
        self,
        layer: int,  # noqa: ARG002
        spec: blueprint.Attention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
    ) -> Tensor:
        """What a layer's queries (batch, heads, length, head_dim) get from the values that they may look at."""
        return attend(query, key, value, self.sight(spec.window), spec.scale, spec.softcap, sinks)

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:  # noqa: ARG002
        """What a layer's convolution makes of its inputs (batch, length, channels) and those before them."""
        if self.hide is not None:
            inputs = inputs.masked_fill(self.hide[:, : inputs.shape[1], None], 0)
        return convolve(inputs, 0, conv)

    def recur(self, layer: int, inputs: Sequence[Tensor], mixer: GatedDeltaNet) -> Tensor:  # noqa: ARG002
        """What a recurrence makes of its inputs, each (batch, length, ...)."""
        return mixer.fold(inputs, None)[0]


class RowsView(PassView):
    """A pass that goes on with the rows of a cache: their new positions lie side by side as one sequence, and only
    attention takes each row by itself."""

    def __init__(self, cache: TensorCache, counts: Sequence[int], blocks: Sequence[int]):
        cache.reserve(counts)
        rows = zip(cache.rows, counts, blocks, strict=True)
        self.parts = [RowPart(row, count, block, cache.device) for row, count, block in rows if count]
        self.counts = [part.count for part in self.parts]
        self.positions = torch.cat([part.positions for part in self.parts], 1)
        self.tables = {}

    def rotary(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if rope not in self.tables:
            cosines, sines = zip(
                *(rotary_cosines(rope, part.positions, part.row.planned_length, dtype) for part in self.parts),
                strict=True,
            )
            self.tables[rope] = torch.cat(cosines, 2), torch.cat(sines, 2)
        return self.tables[rope]

    def attend(
        self,
        layer: int,
        spec: blueprint.Attention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
    ) -> Tensor:
        if len(self.parts) == 1:
            return self.parts[0].attend(layer, spec, query, key, value, sinks)
        of_rows = zip(self.parts, *(torch.split(x, self.counts, 2) for x in (query, key, value)), strict=True)
        return torch.cat([part.attend(layer, spec, *new, sinks) for part, *new in of_rows], 2)

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:
        of_rows = zip(self.parts, torch.split(inputs, self.counts, 1), strict=True)
        return torch.cat([part.convolve(layer, new, conv) for part, new in of_rows], 1)

    def recur(self, layer: int, inputs: Sequence[Tensor], mixer: GatedDeltaNet) -> Tensor:
        of_rows = zip(self.parts, *(torch.split(each, self.counts, 1) for each in inputs), strict=True)
        return torch.cat([part.recur(layer, new, mixer) for part, *new in of_rows], 1)


class RowPart:
    """The new positions of one row in a pass."""

    def __init__(self, row: CacheRow, count: int, block: int, device: torch.device):
        self.row = row
        self.count = count
        self.block = block
        self.positions = torch.arange(row.length, row.length + count, device=device)[None]
        self.sights: dict[int | None, Sight] = {}

    def attend(
        self,
        layer: int,
        spec: blueprint.Attention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
    ) -> Tensor:
        """Store the keys and values (1, kv_heads, count, head_dim), and let the queries read all of the row."""
        key, value, start = write(self.row, layer, key, value)
        if spec.window not in self.sights:
            seen = sight(self.positions, start, key.shape[2], spec.window, block=self.block)
            self.sights[spec.window] = seen
        return attend(query, key, value, self.sights[spec.window], spec.scale, spec.softcap, sinks)

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:
        """Store the inputs (1, count, channels), and convolve them with those before them."""
        before = min(self.row.length, conv.kernel_size[0] - 1)
        return convolve(write_inputs(self.row, layer, inputs, before), before, conv)

    def recur(self, layer: int, inputs: Sequence[Tensor], mixer: GatedDeltaNet) -> Tensor:
        """Go on from the row's state, and store the next."""
        state, target = self.row.recurrent(layer)
        mixed, after = mixer.fold(inputs, None if state is None else state[None])
        target.copy_(after[0])
        return mixed


def convolve(inputs: Tensor, before: int, conv: nn.Conv1d) -> Tensor:
    """The convolution (batch, length, channels) of inputs (batch, before + length, channels); before them are zeros."""
    padded = F.pad(inputs, (0, 0, conv.kernel_size[0] - 1 - before, 0))
    convolved: Tensor = conv(padded.transpose(1, 2))
    return convolved.transpose(1, 2)
