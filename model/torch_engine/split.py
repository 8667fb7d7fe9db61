"""A model split over several processes: each holds some heads, some of the feed-forward's width, and some tokens' rows
(Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053), by torch's DTensor."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.blueprint import EMBEDDING, HEAD, Blueprint
from tokenglass.model.checkpoint.feed_forwards import FeedForward
from tokenglass.model.checkpoint.mixers import Attention, ShortConvolution
from tokenglass.model.checkpoint.parts import HeadNorms, Normalisation, Projection
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight
from tokenglass.model.checkpoint.weights import Weights
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import ParameterError
from tokenglass.model.torch_engine.modules import Norm
from tokenglass.model.torch_engine.storage import as_tensor
from tokenglass.model.torch_engine.transformer import Transformer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

COLUMNS, ROWS = 0, 1  # of a matrix (out, in) each process holds some outputs, or some inputs


class Split:
    """Which part of each weight a process of `size` holds."""

    def __init__(self, blueprint: Blueprint, rank: int, size: int):
        """Raises ParameterError for a number of processes that does not divide the heads and the feed-forward."""
        check_divides(blueprint, size)
        self.blueprint = blueprint
        self.rank = rank
        self.size = size
        if blueprint.token_rows is not None or any(
            kind.heads is not None or kind.source is not None for kind in blueprint.config.layers
        ):
            raise ParameterError(
                "embeddings of each layer, and heads that differ from layer to layer, are not split over several "
                "processes; use one"
            )
        self.modules = {EMBEDDING: COLUMNS, HEAD: COLUMNS}
        for layer in blueprint.layers:
            if not isinstance(layer.mlp, FeedForward):
                raise ParameterError("a mixture of experts is not split over several processes; use one")
            if not isinstance(layer.mixer, Attention):
                kind = "short convolutions" if isinstance(layer.mixer, ShortConvolution) else "Gated DeltaNet layers"
                raise ParameterError(f"{kind} are not split over several processes; use one")
            if isinstance(layer.mixer.query_norm, HeadNorms):
                raise ParameterError("norms of single heads are not split over several processes; use one")
            last = {layer.mixer.output.name, layer.mlp.down.name}
            projections = (part for part in layer.parts if isinstance(part, Projection))
            self.modules |= {part.name: ROWS if part.name in last else COLUMNS for part in projections}
        self.norms = {
            norm.name
            for layer in blueprint.layers
            if isinstance(layer.mixer, Attention)
            for norm in (layer.mixer.query_norm, layer.mixer.key_norm)
            if isinstance(norm, Normalisation) and norm.size != layer.mixer.head_dim
        }

    @property
    def config(self) -> ModelConfig:
        """With the heads of this process: what its cache holds."""
        config = self.blueprint.config
        return replace(config, num_heads=config.num_heads // self.size, num_kv_heads=config.num_kv_heads // self.size)

    def dim(self, name: str) -> int | None:
        """The dimension that a weight is cut along; None where every process holds all of it."""
        module, _, part = name.rpartition(".")
        if module in self.norms:
            return 0
        dim = self.modules.get(module)
        return None if part == "bias" and dim == ROWS else dim

    def cut(self, name: str, array: Array) -> Array:
        """This process's part of a weight: of a mapped file, only that is read."""
        dim = self.dim(name)
        if dim is None:
            return array
        length = -(-array.shape[dim] // self.size)  # as torch.chunk cuts: the last may be shorter
        here = slice(self.rank * length, (self.rank + 1) * length)
        return array[here] if dim == 0 else np.ascontiguousarray(array[:, here])

    def transformer(self, weights: Weights, mesh: DeviceMesh, device: torch.device) -> Transformer:
        """The modules over this process's parts, whose products are exchanged where they have to be."""
        from torch.distributed.tensor import DTensor, Replicate, Shard  # noqa: PLC0415  (one process needs none)
        from torch.distributed.tensor.parallel import (  # noqa: PLC0415
            ColwiseParallel,
            ParallelStyle,
            RowwiseParallel,
            parallelize_module,
        )

        with torch.device("meta"):
            model = Transformer(self.blueprint.config)
        tensors: dict[str, Tensor] = {}
        for name, array in weights.items():
            assert not isinstance(array, Int8Weight | Int4Weight), "read as they are stored"
            local, module = as_tensor(array).to(device), name.rpartition(".")[0]
            if module not in self.modules:
                tensors[name] = local
                continue
            shape, dim = torch.Size(self.blueprint.shapes[name]), self.dim(name)
            placement = Replicate() if dim is None else Shard(dim)
            stride = torch.empty(shape, device="meta").stride()
            tensors[name] = DTensor.from_local(local, mesh, [placement], run_check=False, shape=shape, stride=stride)
        if self.blueprint.tied:
            tensors[f"{HEAD}.weight"] = tensors[f"{EMBEDDING}.weight"]
        for name in self.norms:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], SplitNorm(model.get_submodule(name), self.size))
        model.load_state_dict(tensors, assign=True)
        plan: dict[str, ParallelStyle] = {
            name: ColwiseParallel() if dim == COLUMNS else RowwiseParallel() for name, dim in self.modules.items()
        }
        plan[EMBEDDING] = RowwiseParallel(input_layouts=Replicate())
        plan[HEAD] = ColwiseParallel(output_layouts=Replicate())
        parallelize_module(model, mesh, plan)
        return model.eval().requires_grad_(False)


class SplitNorm(Norm):
    """A root mean square over numbers of which each process holds as many."""

    weight: nn.Parameter

    def __init__(self, norm: nn.Module, processes: int):
        assert isinstance(norm, Norm)
        assert norm.weight is not None
        nn.Module.__init__(self)
        assert norm.kind != "layer", "no family has one over all heads"
        self.kind, self.eps, self.bias = norm.kind, norm.eps, None
        self.size, self.processes = norm.size // processes, processes
        self.weight = nn.Parameter(norm.weight[: self.size])

    def forward(self, x: Tensor) -> Tensor:
        squares = x.float().square().mean(-1, keepdim=True)
        torch.distributed.all_reduce(squares)
        ready = x.float() * torch.rsqrt(squares / self.processes + self.eps)
        if self.kind == "rms":
            return self.weight * ready.to(x.dtype)
        return (ready * (self.weight.float() + (self.kind == "rms_plus_one"))).to(x.dtype)


def check_divides(blueprint: Blueprint, size: int) -> None:
    """Raises ParameterError."""
    config = blueprint.config
    counts = {
        "attention heads": config.num_heads,
        "key-value heads": config.num_kv_heads,
        "numbers in the feed-forward": config.intermediate_size,
    }
    for what, count in counts.items():
        if count % size:
            most = math.gcd(*counts.values())
            possible = ", ".join(str(other) for other in range(1, most + 1) if most % other == 0)
            raise ParameterError(f"{size} processes cannot share the model's {count:,} {what}; {possible} can")
