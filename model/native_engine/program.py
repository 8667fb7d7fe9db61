"""A transformer as the list of operations that the kernels run. The modules stay the one description of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.native_engine.errors import KernelsError
from tokenglass.model.native_engine.structures import Activation, Buffer, Code, Kind, Matrix, Norm, Normed, Operation
from tokenglass.model.torch_engine.quantisation import Int4Weight, Int8Weight
from tokenglass.model.torch_engine.transformer import Attention, Transformer
from tokenglass.model.torch_engine.transformer import Norm as NormModule

FLOATS = {torch.float32: Kind.FLOAT32, torch.bfloat16: Kind.BFLOAT16}


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Operations:
    """Writes single operations, and keeps the tensors that their pointers lead into."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def multiply(
        self, source: Buffer, target: Buffer, *linears: Any, norm: nn.Module | None = None, **fields: Any
    ) -> Operation:
        """target, target + 1, ... = linears(norm(source))."""
        operation = Operation(**{"kind": Code.MULTIPLY, "source": source, "target": target, **fields})
        operation.parts = len(linears)
        operation.matrices[: len(linears)] = [self.matrix(linear) for linear in linears]
        if isinstance(norm, NormModule):
            operation.norm = self.norm(norm)
        return operation

    def normalise(self, norm: NormModule, source: Buffer, target: Buffer, *, add: bool = False) -> Operation:
        return Operation(kind=Code.NORMALISE, source=source, target=target, add=add, norm=self.norm(norm))

    def matrix(self, module: Any) -> Matrix:
        """The weight and bias of a projection or an embedding. Raises KernelsError."""
        weight, bias = module.weight, getattr(module, "bias", None)
        if isinstance(weight, Int8Weight):
            kind, values, scales, offsets = Kind.INT8, weight.values, weight.scales, None
            rows, columns = weight.out_features, weight.in_features
        elif isinstance(weight, Int4Weight):
            kind, values, scales, offsets = Kind.INT4, weight.packed, weight.scales, weight.offsets
            rows, columns = weight.out_features, weight.in_features
        else:
            if weight.dtype not in FLOATS:
                raise KernelsError(f"they do not know weights of {named(weight.dtype)}")
            if not weight.is_contiguous():  # kept by the module too, so that the memory is taken once
                module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
            kind, values, scales, offsets = FLOATS[weight.dtype], module.weight, None, None
            rows, columns = values.shape
        return Matrix(
            kind,
            rows,
            columns,
            self.keep(values),
            self.keep(scales),
            self.keep(offsets),
            self.keep(None if bias is None else bias.float()),
        )

    def norm(self, norm: NormModule) -> Norm:
        weight = norm.weight.float() + (norm.kind == "rms_plus_one")
        bias = None if norm.bias is None else norm.bias.float()
        kind = Normed.LAYER if norm.kind == "layer" else Normed.RMS
        return Norm(kind, len(weight), norm.eps, self.keep(weight), self.keep(bias))

    def keep(self, tensor: Tensor | None) -> int | None:
        """The address of a tensor that lives as long as this program."""
        if tensor is None:
            return None
        tensor = tensor.detach().contiguous()
        self.kept.append(tensor)
        return tensor.data_ptr()


class Program(Operations):
    """`operations` for a whole model; `ropes` are the tables they count on."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.config: ModelConfig = model.config
        self.ropes: list[Rope] = list(dict.fromkeys(kind.rope for kind in model.config.layers if kind.rope is not None))
        self.operations = [*self._operations(model)]

    def _operations(self, model: Transformer) -> Iterator[Operation]:
        decoder = model.model
        yield self._embedding(decoder)
        yield Operation(kind=Code.TAP, layer=0)
        for layer, block in enumerate(decoder.layers):
            yield from self._block(block, layer)
            yield Operation(kind=Code.TAP, layer=layer + 1)
        yield self.multiply(
            Buffer.HIDDEN,
            Buffer.HIDDEN,
            model.lm_head,
            norm=decoder.norm,
            kind=Code.HEAD,
            softcap=self.config.logit_softcap or 0.0,
        )

    def _embedding(self, decoder: Any) -> Operation:
        learned = [decoder.embed_positions] if self.config.learned_positions else []
        scale, weight = self.config.embedding_scale or 1.0, decoder.embed_tokens.weight
        if isinstance(weight, Tensor):  # rounded to the dtype, as it was in training
            scale = torch.tensor(scale, dtype=weight.dtype).item()
        matrices = [self.matrix(module) for module in (decoder.embed_tokens, *learned)]
        operation = Operation(kind=Code.EMBED, parts=len(matrices), scale=scale)
        operation.matrices[: len(matrices)] = matrices
        return operation

    def _block(self, block: Any, layer: int) -> Iterator[Operation]:
        # What is added to the residual stream is added there, unless a norm comes between.
        added, add = (Buffer.ADDED, False) if block.post_norm else (Buffer.HIDDEN, True)
        before_mlp = block.pre_feedforward_layernorm if block.post_norm else block.post_attention_layernorm
        if block.parallel:  # the MLP reads the stream before attention is added to it
            yield self._feed_forward(block, before_mlp)
        yield from self._attention(block.self_attn, block.input_layernorm, layer)
        yield self.multiply(Buffer.MIXED, added, block.self_attn.o_proj, add=add)
        if block.post_norm:
            yield self.normalise(block.post_attention_layernorm, Buffer.ADDED, Buffer.HIDDEN, add=True)
        if not block.parallel:
            yield self._feed_forward(block, before_mlp)
        yield self.multiply(Buffer.GATE, added, block.mlp.down_proj, add=add)
        if block.post_norm:
            yield self.normalise(block.post_feedforward_layernorm, Buffer.ADDED, Buffer.HIDDEN, add=True)

    def _attention(self, attention: Attention, norm: nn.Module, layer: int) -> Iterator[Operation]:
        config, kind = self.config, attention.kind
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        yield self.multiply(Buffer.HIDDEN, Buffer.QUERY, *projections, norm=norm)
        operation = Operation(
            kind=Code.ATTEND,
            layer=layer,
            rope=-1 if kind.rope is None else self.ropes.index(kind.rope),
            window=-1 if kind.window is None else kind.window,
            scale=config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale,
            softcap=config.attention_softcap or 0.0,
        )
        if config.qk_norm == "projection":
            yield self.normalise(attention.q_norm, Buffer.QUERY, Buffer.QUERY)
            yield self.normalise(attention.k_norm, Buffer.KEY, Buffer.KEY)
        elif config.qk_norm == "head":
            operation.norm, operation.other_norm = self.norm(attention.q_norm), self.norm(attention.k_norm)
        yield operation

    def _feed_forward(self, block: Any, norm: nn.Module) -> Operation:
        mlp = block.mlp
        gated = [mlp.gate_proj] if self.config.gated_mlp else []
        return self.multiply(
            Buffer.HIDDEN,
            Buffer.GATE,
            *gated,
            mlp.up_proj,
            norm=norm,
            gated=bool(gated),
            activation=Activation[self.config.activation.upper()],
        )
