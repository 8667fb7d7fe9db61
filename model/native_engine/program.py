"""A model as the list of operations that the kernels run, from its blueprint and its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint import blueprint, feed_forwards, mixers, parts
from tokenglass.model.checkpoint.arrays import cast, dtype_name, to_float32
from tokenglass.model.checkpoint.grids import Squares
from tokenglass.model.checkpoint.layer_inputs import TokenInput, TokenRows
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.keys_values import layer_groups, layer_places
from tokenglass.model.native_engine.operations import Operations, Weight
from tokenglass.model.native_engine.structures import (
    Activation,
    Buffer,
    Code,
    Matrix,
    Norm,
    Normed,
    Operation,
)


class Program(Operations):
    """`operations` for a whole model; `ropes` are the tables they count on. Raises KernelsError.

    What the matrices of `squares` multiply is added up there, as its squares (in,), in every pass.
    """

    def __init__(
        self, spec: blueprint.Blueprint, weights: Mapping[str, Weight], squares: Mapping[str, Squares] | None = None
    ):
        super().__init__()
        self._spec = spec
        self._weights = weights
        self._squares = squares or {}
        ropes = (kind.rope for kind in spec.config.layers)
        self.ropes: list[Rope] = list(dict.fromkeys(rope for rope in ropes if rope is not None))
        self._places = layer_places(layer_groups(spec.config))
        self.operations = [*self._operations()]

    def _operations(self) -> Iterator[Operation]:
        spec = self._spec
        yield self._embedding()
        if spec.embedding_norm is not None:
            yield self.normalise(self._norm(spec.embedding_norm), Buffer.HIDDEN, Buffer.HIDDEN)
        if spec.token_rows is not None:
            yield from self._token_rows(spec.token_rows)
        yield Operation(kind=Code.TAP, layer=0)
        for index, layer in enumerate(spec.layers):
            yield from self._layer(layer, index)
            if layer.token_input is not None:
                yield from self._take_in(layer.token_input, index)
            if layer.scale is not None:
                yield self.normalise(self._scale(self._floats(layer.scale.name)[0]), Buffer.HIDDEN, Buffer.HIDDEN)
            yield Operation(kind=Code.TAP, layer=index + 1)
        head = self.matrix(self._weights[spec.head_weight], self._bias(spec.head))
        ends = {"scale": spec.config.logit_scale or 1.0, "softcap": spec.config.logit_softcap or 0.0}
        norm = self._norm(spec.norm)
        yield self.multiply(Buffer.HIDDEN, Buffer.HIDDEN, head, norm=norm, kind=Code.HEAD, **ends)

    def _embedding(self) -> Operation:
        spec = self._spec
        tables = [spec.embedding, *([] if spec.positions is None else [spec.positions])]
        scale = self._round_scale(spec.config.embedding_scale or 1.0, spec.embedding)
        row = self.row(*(self.matrix(self._weights[f"{table.name}.weight"]) for table in tables))
        return Operation(kind=Code.EMBED, target=Buffer.HIDDEN, parts=len(tables), scale=scale, matrices=row)

    def _round_scale(self, scale: float, table: parts.Table) -> float:
        """A factor on what a table holds, rounded to its dtype, as it was in training."""
        weight = self._weights[f"{table.name}.weight"]
        if not isinstance(weight, np.ndarray):
            return scale
        return float(to_float32(cast(np.array([scale], np.float32), dtype_name(weight.dtype)))[0])

    def _token_rows(self, spec: TokenRows) -> Iterator[Operation]:
        """Factors on what is normalised are in its eps and its weight."""
        rows, norm = Buffer.TOKEN_ROWS, self._norm(spec.norm, spec.sum_scale)
        norm.eps = spec.norm.eps / spec.projection_scale**2
        yield self.multiply(Buffer.HIDDEN, rows, self._projection(spec.projection))
        yield self.normalise(norm, rows, rows, stretches=spec.table.size // spec.size)
        table = self.row(self.matrix(self._weights[f"{spec.table.name}.weight"]))
        scale = self._round_scale(spec.table_scale, spec.table) * spec.sum_scale
        yield Operation(kind=Code.EMBED, target=rows, parts=1, scale=scale, matrices=table, add=True)

    def _take_in(self, spec: TokenInput, index: int) -> Iterator[Operation]:
        gate, size = self._projection(spec.gate), spec.gate.out_features
        yield self.multiply(Buffer.HIDDEN, Buffer.GATE, gate, activation=Activation[spec.activation.upper()])
        stretch = {"first": index * size, "size": size}
        yield Operation(kind=Code.TIMES, source=Buffer.TOKEN_ROWS, target=Buffer.GATE, **stretch)
        yield from self._add(Buffer.GATE, spec.output, spec.norm)

    def _layer(self, layer: blueprint.Layer, index: int) -> Iterator[Operation]:
        mlp = layer.mlp
        if isinstance(mlp, feed_forwards.FeedForward):
            steps = [self._mixer(layer, index), self._up(mlp, layer.before_mlp)]
            if layer.parallel:  # the MLP reads the stream before attention is added to it
                steps.reverse()
            yield from chain(*steps)
            yield from self._add(Buffer.GATE, mlp.down, layer.after_mlp)
            return
        yield from self._mixer(layer, index)
        if isinstance(mlp, feed_forwards.Experts):
            yield from self._experts(mlp, index, layer.before_mlp)
            yield self._combine(Buffer.HIDDEN, layer.after_mlp)
            return
        yield from self._up(mlp.dense, layer.before_mlp)
        yield self.multiply(Buffer.GATE, Buffer.ADDED, self._projection(mlp.dense.down))
        yield self.normalise(self._norm(mlp.after_dense), Buffer.ADDED, Buffer.ADDED)
        yield from self._experts(mlp.routed, index, mlp.before_experts)
        yield self._combine(Buffer.ADDED, mlp.after_experts)
        yield self.normalise(self._norm(layer.after_mlp), Buffer.ADDED, Buffer.HIDDEN, add=True)

    def _mixer(self, layer: blueprint.Layer, index: int) -> Iterator[Operation]:
        spec, before = layer.mixer, self._norm(layer.before_mixer)
        state, place = self._places[spec.keys_layer(index) if isinstance(spec, mixers.Attention) else index]
        projections, target = [self._projection(part) for part in spec.inputs], int(Buffer.QUERY)
        for _, alike in groupby(projections, key=lambda matrix: matrix.kind):  # each kind takes x in a form of its own
            matrices = [*alike]
            yield self.multiply(Buffer.HIDDEN, Buffer(target), *matrices, norm=before)
            target += len(matrices)
        if isinstance(spec, mixers.ShortConvolution):
            yield self._convolve(spec.kernel, state, place)
        elif isinstance(spec, mixers.GatedDeltaNet):
            rates = self._projection(spec.strength), self._projection(spec.decay)
            yield self.multiply(Buffer.HIDDEN, Buffer.ROUTED, *rates, norm=self._norm(layer.before_mixer))
            yield self._recur(spec, state, place)
        else:
            yield from self._attend(spec, state, place)
            if spec.gate is not None:
                by_head = spec.gate.out_features == spec.num_heads
                yield Operation(kind=Code.OPEN, head_dim=spec.head_dim, by_head=by_head)
        yield from self._add(Buffer.MIXED, spec.output, layer.after_mixer)

    def _convolve(self, spec: parts.Kernel, state: int, place: int) -> Operation:
        bias = self._floats(f"{spec.name}.bias") if spec.bias else None
        kernel = self._floats(f"{spec.name}.weight")[:, 0].T
        fields = {"taps": spec.taps, "kernel": self.keep(kernel), "kernel_bias": self.keep(bias)}
        return Operation(kind=Code.CONVOLVE, state=state, layer=place, **fields)

    def _recur(self, spec: mixers.GatedDeltaNet, state: int, place: int) -> Operation:
        sizes, rates = spec.sizes, (self._floats(name) for name in spec.rates.shapes)
        return Operation(
            kind=Code.RECUR,
            state=state,
            layer=place,
            key_heads=sizes.key_heads,
            value_heads=sizes.value_heads,
            key_dim=sizes.key_dim,
            value_dim=sizes.value_dim,
            taps=sizes.taps,
            kernel=self.keep(self._floats(f"{spec.kernel.name}.weight")[:, 0].T),
            rates=self.keep(np.concatenate([*rates])),
            norm=self._norm(spec.norm),
        )

    def _floats(self, name: str) -> NDArray[np.float32]:
        weight = self._weights[name]
        assert isinstance(weight, np.ndarray), "only matrices are quantised"
        return to_float32(weight)

    def _attend(self, spec: mixers.Attention, state: int, place: int) -> Iterator[Operation]:
        operation = Operation(
            kind=Code.ATTEND,
            state=state,
            layer=place,
            rope=-1 if spec.rope is None else self.ropes.index(spec.rope),
            window=-1 if spec.window is None else spec.window,
            kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            reads_only=spec.source is not None,
            scale=spec.scale,
            softcap=spec.softcap or 0.0,
            rotate_first=spec.rotate_first,
            growth=0.0 if spec.growth is None else spec.growth.beta,
            trained=1.0 if spec.growth is None else spec.growth.trained_positions,
            sinks=self._sinks(spec.sinks),
        )
        if spec.value_norm is not None:
            source = Buffer.KEY if spec.value is None else Buffer.VALUE
            norm = self._norm(spec.value_norm)
            yield self.normalise(norm, source, Buffer.VALUE, stretches=spec.num_kv_heads)
        query_norm, key_norm = self._qk_norm(spec.query_norm), self._qk_norm(spec.key_norm)
        if spec.query_norm is not None and spec.query_norm.size != spec.head_dim:
            yield self.normalise(query_norm, Buffer.QUERY, Buffer.QUERY)
            yield self.normalise(key_norm, Buffer.KEY, Buffer.KEY)
        else:  # in one go with the rope
            operation.norm, operation.other_norm = query_norm, key_norm
        yield operation

    def _up(self, spec: feed_forwards.FeedForward, before: parts.Normalisation | None) -> Iterator[Operation]:
        yield self.multiply(
            Buffer.HIDDEN,
            Buffer.GATE,
            *(self._projection(part) for part in spec.inputs),
            norm=self._norm(before),
            gated=spec.gate is not None,
            **self._activation(spec),
        )

    def _experts(
        self, spec: feed_forwards.Experts, index: int, before: parts.Normalisation | None
    ) -> Iterator[Operation]:
        """The products of each position with the matrices of the experts that it takes."""
        norm, experts, first = self._norm(before), spec.feed_forwards, spec.experts[0]
        routers = (self._projection(part) for part in spec.routers)
        of_router = norm if spec.router_input is None else self._router_norm(spec.router_input)
        yield self.multiply(Buffer.HIDDEN, Buffer.ROUTED, *routers, norm=of_router)
        layer = list(self._spec.mixtures).index(index)
        yield self._choose(spec, layer)
        pairs = {"kind": Code.MULTIPLY_PAIRS, "experts": len(experts), "layer": layer}
        yield Operation(
            **pairs,
            source=Buffer.HIDDEN,
            target=Buffer.INNER,
            parts=len(first.inputs),
            gated=first.gate is not None,
            **self._activation(first),
            norm=norm,
            matrices=self.row(*(self._projection(part) for each in experts for part in each.inputs)),
        )
        down = self.row(*(self._projection(each.down) for each in experts))
        yield Operation(**pairs, source=Buffer.INNER, target=Buffer.OUTER, parts=1, matrices=down)

    def _combine(self, target: Buffer, after: parts.Normalisation | parts.Scaling | None) -> Operation:
        """What the experts of each position gave together, normalised and added."""
        return Operation(kind=Code.COMBINE, target=target, norm=self._norm(after))

    def _router_norm(self, spec: feed_forwards.RouterInput) -> Norm:
        norm = self._norm(spec.norm)
        norm.weight = self.keep(self._floats(spec.scale.name) * np.float32(spec.factor))
        return norm

    def _choose(self, spec: feed_forwards.Experts, layer: int) -> Operation:
        mixture, bias, factors = spec.mixture, spec.choice_bias, spec.expert_scale
        return Operation(
            kind=Code.CHOOSE,
            layer=layer,
            chosen=mixture.chosen,
            shared_gate=mixture.shared_gate,
            sigmoid=mixture.sigmoid,
            renormalise=mixture.renormalise,
            sum_eps=mixture.sum_eps,
            scale=mixture.scale,
            choice_bias=None if bias is None else self.keep(self._floats(bias.name)),
            expert_scale=None if factors is None else self.keep(self._floats(factors.name)),
        )

    def _activation(self, spec: feed_forwards.FeedForward) -> dict[str, Any]:
        if spec.swiglu is not None:
            return {"activation": Activation.CLAMPED_SWIGLU, "above": spec.swiglu.limit, "below": spec.swiglu.alpha}
        return {"activation": Activation[spec.activation.upper()], **self._read_alphas(spec.learned)}

    def _sinks(self, spec: parts.Vector | None) -> int | None:
        if spec is None:
            return None
        return self.keep(self._floats(spec.name))

    def _read_alphas(self, spec: parts.Xielu | None) -> dict[str, float]:
        """The factors of an activation's two sides, in float32."""
        if spec is None:
            return {}
        alphas: list[Any] = [self._weights[f"{spec.name}.{side}"] for side in ("alpha_p", "alpha_n")]
        above, below = (float(np.log1p(np.exp(to_float32(alpha)))[0]) for alpha in alphas)
        return {"above": above, "below": 0.5 + below}

    def _add(
        self,
        source: Buffer,
        projection: parts.Projection,
        norm: parts.Normalisation | parts.Scaling | None,
    ) -> Iterator[Operation]:
        """A projection added to the residual stream, there where no norm comes between."""
        if norm is None:
            yield self.multiply(source, Buffer.HIDDEN, self._projection(projection), add=True)
            return
        yield self.multiply(source, Buffer.ADDED, self._projection(projection))
        yield self.normalise(self._norm(norm), Buffer.ADDED, Buffer.HIDDEN, add=True)

    def _projection(self, spec: parts.Projection) -> Matrix:
        name = f"{spec.name}.weight"
        return self.matrix(self._weights[name], self._bias(spec), self._squares.get(name))

    def _bias(self, spec: parts.Projection) -> NDArray[Any] | None:
        bias = self._weights[f"{spec.name}.bias"] if spec.bias else None
        assert not isinstance(bias, Int8Weight | Int4Weight), "biases are never quantised"
        return bias

    def _qk_norm(self, spec: parts.Normalisation | parts.HeadNorms | None) -> Norm:
        if not isinstance(spec, parts.HeadNorms):
            return self._norm(spec)
        norm = self._norm(spec.heads[0])
        norm.weight = self.keep(np.concatenate([self._floats(name) for name in spec.shapes]))
        norm.apart = spec.size
        return norm

    def _scale(self, factor: float) -> Norm:
        """In the place of a norm of the residual stream."""
        hidden = self._spec.config.hidden_size
        return Norm(Normed.SCALE, hidden, 0.0, self.keep(np.full(hidden, factor, np.float32)), None)

    def _norm(self, spec: parts.Normalisation | parts.Scaling | None, factor: float = 1.0) -> Norm:
        """What it gives times `factor`."""
        if spec is None:
            return Norm(kind=Normed.NONE)
        if isinstance(spec, parts.Scaling):
            return self._scale(spec.factor)
        weight, bias = (self._weights.get(f"{spec.name}.{part}") for part in ("weight", "bias"))
        weight = np.ones(spec.size, np.float32) if weight is None else weight
        assert isinstance(weight, np.ndarray), "norms are never quantised"
        assert bias is None or isinstance(bias, np.ndarray)
        scale = (to_float32(weight) + np.float32(spec.kind == "rms_plus_one")) * np.float32(factor)
        kind = Normed.LAYER if spec.kind == "layer" else Normed.RMS
        return Norm(kind, spec.size, spec.eps, self.keep(scale), self.keep(None if bias is None else to_float32(bias)))
