"""The engine that runs a model with torch on this machine: the reference, and the way to a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenglass.model.checkpoint.blueprint import EMBEDDING, HEAD, Blueprint
from tokenglass.model.checkpoint.grids import Squares
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight
from tokenglass.model.checkpoint.weights import Weights
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Ids, Logits, PerRow, Rows
from tokenglass.model.engine.memory import available_memory
from tokenglass.model.errors import EngineError, ParameterError
from tokenglass.model.sampling.raw import Measure, draw_one_by_one, measure_later, measure_rows
from tokenglass.model.sampling.routed_logits import Routes, routes_of
from tokenglass.model.torch_engine.feed_forwards import Experts
from tokenglass.model.torch_engine.quantised import QuantizedEmbedding, QuantizedLinear, put_quantised
from tokenglass.model.torch_engine.static import StaticSteps, is_static, single_step
from tokenglass.model.torch_engine.storage import TensorCache, as_tensor
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.model.torch_engine.views import PassView

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchEngine:
    """A transformer in this process."""

    processes = 1  # that hold the model
    watches_experts = False  # whether logits are to say which experts their positions took
    measure = Measure()
    measure_each = staticmethod(measure_later)
    draw_each = staticmethod(draw_one_by_one)
    measure_rows = staticmethod(measure_rows)

    def __init__(self, model: Transformer, device: torch.device, dtype: torch.dtype, steps: StaticSteps | None = None):
        """`steps` make the passes of one row and one token, where they are given."""
        self.model = model
        self.steps = steps
        self.device = device
        self.dtype = dtype

    @property
    def limit(self) -> int:
        return self.model.config.max_positions

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        sizes = {name: tensor.nbytes for name, tensor in self.model.state_dict().items()}
        for name, module in self.model.named_modules():
            if isinstance(module, QuantizedLinear | QuantizedEmbedding):
                sizes[f"{name}.weight"] = module.weight.nbytes
        blueprint = self.model.blueprint
        names, shares = blueprint.shapes.keys() - blueprint.read_once, blueprint.shares
        return round(sum(size * shares.get(name, 1) for name, size in sizes.items() if name in names))

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> TensorCache:
        return TensorCache(
            self.model.config,
            rows=rows,
            limit=self.limit,
            dtype=self.dtype,
            device=self.device,
            planned_length=planned_length,
        )

    def forward(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> list[Logits]:
        assert cache is None or isinstance(cache, TensorCache), "a cache of another engine"
        rows = Rows.of(token_ids, last, block, self.vocab_size)
        try:
            with torch.inference_mode():
                return self._pass(rows, cache, planned_length)
        except torch.OutOfMemoryError:
            raise EngineError(f"{self.device} is out of memory; try a shorter prompt or --device cpu") from None

    def _pass(self, rows: Rows, cache: TensorCache | None, planned_length: int | None) -> list[Logits]:
        ids, routes = rows.token_ids, self._new_routes()
        if cache is None:
            parts = []
            for own, outputs, block in zip(ids, rows.outputs, rows.blocks, strict=True):
                parts.append(self._alone(own, outputs, block, planned_length))
                self._add_routes(routes, range(len(own) - outputs, len(own)))
        elif self.steps is not None and (row := single_step(rows)) is not None:
            cache.reserve(rows.counts)
            logits = self.steps.logits(cache, row, ids[row][0])
            cache.advance(ids, rows.blocks)
            return rows.split(logits.numpy())
        elif any(rows.counts):
            hidden = torch.split(self.model.go_on(ids, cache, rows.blocks), rows.counts)
            parts = [part[len(part) - count :] for part, count in zip(hidden, rows.outputs, strict=True)]
            self._add_routes(routes, rows.output_columns)
        else:
            return [np.zeros((0, self.vocab_size), np.float32) for _ in ids]
        return rows.split(self.model.logits(torch.cat(parts)).float().cpu().numpy(), routes)

    def _alone(self, token_ids: list[int], outputs: int, block: int, planned_length: int | None) -> Tensor:
        """Hidden states (outputs, hidden) of one row, without a cache."""
        ids = torch.tensor([token_ids], device=self.device)
        hidden: Tensor = self.model.model(ids, PassView(ids, planned_length, block))[0]
        return hidden[len(hidden) - outputs :]

    def _new_routes(self) -> list[Routes] | None:
        """Room for what the positions of a pass take; None where nobody watches."""
        return [] if self.watches_experts and self.model.blueprint.mixtures else None

    def _add_routes(self, routes: list[Routes] | None, columns: Sequence[int]) -> None:
        """Those of some positions that the modules computed last."""
        if routes is not None:
            mixtures = [module for module in self.model.model.layers.modules() if isinstance(module, Experts)]
            taken, probs = zip(*(mixture.taken for mixture in mixtures if mixture.taken is not None), strict=True)
            layers = list(self.model.blueprint.mixtures)
            routes += routes_of(layers, list(columns), torch.stack(taken), torch.stack(probs))

    def sum_squares(self, token_ids: Ids) -> dict[str, Squares]:
        """Of what each matrix multiplies, by the matrix's name, the squares (in,) summed over the positions of rows."""
        names = self.model.blueprint.in_4_bits
        modules = {name: self.model.get_submodule(name.removesuffix(".weight")) for name in names}
        squares = {name: np.zeros(self.model.blueprint.shapes[name][1]) for name in names}

        def sum_into(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
            def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
                squares[name] += inputs[0].double().square().flatten(0, -2).sum(0).cpu().numpy()

            return add

        hooks = [module.register_forward_pre_hook(sum_into(name)) for name, module in modules.items()]
        try:
            self.forward(token_ids, None, last=0)
        finally:
            for hook in hooks:
                hook.remove()
        return squares

    def read(self, block: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Only read memory, with torch's threads."""
        torch.from_numpy(block).view(torch.int64).sum()


def load_torch(blueprint: Blueprint, weights: Weights, device: str, dtype: str, threads: int) -> TorchEngine:
    """The engine over these weights, on so many threads."""
    torch.set_num_threads(threads)
    target = pick_device(device)
    model = build_transformer(blueprint.config, weights, target, DTYPES[dtype])
    steps = StaticSteps(model) if target.type == "cuda" and is_static(model) else None
    return TorchEngine(model, target, DTYPES[dtype], steps)


def build_transformer(
    config: ModelConfig, weights: Weights, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Transformer:
    """The modules over these weights, which are shared with them on a CPU; `dtype` is what they compute in."""
    with torch.device("meta"):
        model = Transformer(config)
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if isinstance(weight, Int8Weight | Int4Weight):
            put_quantised(model, name, weight.with_parts(lambda part: as_tensor(part).to(device)), dtype)
        else:
            as_stored = name in model.blueprint.on_disk
            # Beside quantised matrices some are of another dtype.
            tensors[name] = as_tensor(weight).to(device, None if as_stored else dtype)
    if model.blueprint.tied and isinstance(model.lm_head, nn.Linear):
        tensors[f"{HEAD}.weight"] = tensors[f"{EMBEDDING}.weight"]
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


def check_whole(engine: TorchEngine) -> None:
    """Raises ParameterError where other processes hold parts of the model: none of them can be looked into."""
    if engine.processes > 1:
        raise ParameterError("the hidden states are those of one process; look into the model without torchrun")


def pick_device(name: str) -> torch.device:
    """The device of that name; auto takes cuda, then mps, then the CPU. Raises ParameterError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present.get(name, False):
        raise ParameterError(
            f"device {name} is not there; this machine has {', '.join(d for d, p in present.items() if p)}"
        )
    return torch.device(name)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free for a model on a device; None where that is not known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
