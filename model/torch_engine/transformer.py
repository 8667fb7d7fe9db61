"""The compact causal transformer. Attribute names are those of Llama checkpoints (others:
see model/checkpoint/layouts.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenglass.model.checkpoint import blueprint, mixers, parts
from tokenglass.model.checkpoint.layer_inputs import TokenRows
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.torch_engine.delta import GatedDeltaNet
from tokenglass.model.torch_engine.feed_forwards import ACTIVATIONS, MLP, Experts, mlp_of
from tokenglass.model.torch_engine.mixers import Attention, ShortConvolution
from tokenglass.model.torch_engine.modules import Norm, linear
from tokenglass.model.torch_engine.storage import TensorCache
from tokenglass.model.torch_engine.views import PassView, RowsView


class Scale(nn.Module):
    """Every number times the same factor."""

    def __init__(self, spec: parts.Scaling):
        super().__init__()
        self.factor = spec.factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def embedding(spec: parts.Table) -> nn.Embedding:
    """To be filled: nn.Embedding's own random numbers, drawn without memory, import torch's compiler."""
    return nn.Embedding(spec.rows, spec.size, _weight=torch.zeros(spec.rows, spec.size))


class Block(nn.Module):
    """One layer: the mixer, then the feed-forward, each added to the residual stream.

    Its norms have the checkpoints' names, by which blueprint.py tells where each of them stands.
    """

    def __init__(self, spec: blueprint.Layer):
        super().__init__()
        self.parallel = spec.parallel
        if isinstance(spec.mixer, mixers.ShortConvolution):
            self.conv = ShortConvolution(spec.mixer)
        elif isinstance(spec.mixer, mixers.GatedDeltaNet):
            self.linear_attn = GatedDeltaNet(spec.mixer)
        else:
            self.self_attn = Attention(spec.mixer)
        self.mlp: MLP | Experts = mlp_of(spec.mlp)
        self.names: list[str | None] = []
        for norm in spec.norms:
            name = None
            if isinstance(norm, parts.Normalisation):  # one that stands at two places is one module
                name = norm.name.rpartition(".")[2]
                self.add_module(name, Norm(norm))
            elif norm is not None:
                name = "residual_scale"
                self.add_module(name, Scale(norm))
            self.names.append(name)
        self.token_activation = None
        if (token := spec.token_input) is not None:
            self.token_activation = ACTIVATIONS[token.activation]
            self.per_layer_input_gate, self.per_layer_projection = linear(token.gate), linear(token.output)
            self.post_per_layer_input_norm = Norm(token.norm)
        self.layer_scalar = None if spec.scale is None else nn.Parameter(torch.ones(1))

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
        stream = x if self.parallel else mixed
        x = mixed + self.after_mlp(self.mlp(self.before_mlp(stream), stream))
        if self.token_activation is not None and view.token_rows is not None:
            opened = self.token_activation(self.per_layer_input_gate(x)) * view.token_rows[:, :, layer]
            x = x + self.post_per_layer_input_norm(self.per_layer_projection(opened))
        return x if self.layer_scalar is None else x * self.layer_scalar


class Decoder(nn.Module):
    """Embedding, layers and final norm: token ids (batch, length) to hidden states (batch, length, hidden)."""

    def __init__(self, spec: blueprint.Blueprint):
        super().__init__()
        self.scale = spec.config.embedding_scale
        self.embed_tokens = embedding(spec.embedding)
        self.embed_positions = None if spec.positions is None else embedding(spec.positions)
        self.embed_norm = None if spec.embedding_norm is None else Norm(spec.embedding_norm)
        self.rows = spec.token_rows
        if self.rows is not None:
            self.embed_tokens_per_layer = embedding(self.rows.table)
            self.per_layer_model_projection = linear(self.rows.projection)
            self.per_layer_projection_norm = Norm(self.rows.norm)
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
        if self.rows is not None:
            view.token_rows = self.token_rows(self.rows, token_ids, x)
        for layer, block in enumerate(self.layers):
            x = block(x, layer, view)
        return self.norm(x)

    def token_rows(self, spec: TokenRows, token_ids: Tensor, x: Tensor) -> Tensor:
        """What each layer takes in of the tokens (batch, length, layers, size), of their embeddings x (batch, length,
        hidden); see layer_inputs.TokenRows."""
        stored = self.embed_tokens_per_layer(token_ids)
        rows = stored * torch.full((), spec.table_scale, dtype=stored.dtype, device=stored.device)
        projected = self.per_layer_model_projection(x) * spec.projection_scale
        normed = self.per_layer_projection_norm(projected.unflatten(-1, (-1, spec.size)))
        return (normed + rows.to(x.dtype).view_as(normed)) * spec.sum_scale


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
