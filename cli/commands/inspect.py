"""inspect: what a checkpoint is, from its headers and config alone."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tokenglass.cli import options
from tokenglass.cli.say import write_json
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.text import count, nbytes
from tokenglass.cli.widgets.calibration import calibration_facts, calibration_rows
from tokenglass.cli.widgets.facts import facts_table

if TYPE_CHECKING:
    from tokenglass.model.checkpoint.folder import Checkpoint
    from tokenglass.model.config.config import ModelConfig


def inspect(
    model: options.ModelArgument = None,
    lora: options.Lora = None,
    as_json: options.Json = False,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Show a checkpoint's architecture, size and cache needs. No weights are loaded."""
    from tokenglass.cli.run.adapters import open_checkpoint

    facts = describe(open_checkpoint(model, lora))
    if as_json:
        write_json(facts, indent=2)
        return
    make_console(sys.stdout, color=color.value).print(facts_table(in_words(facts)))


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts, by the names that JSON uses.

    The cache is in the dtype that it has on a CPU where none is named.
    """
    from tokenglass.model.checkpoint.quantised_layout import CACHE_DTYPE
    from tokenglass.model.checkpoint.wrapped import groups_of
    from tokenglass.model.loading import default_dtype

    config = checkpoint.config
    cache_dtype = default_dtype(checkpoint, "cpu") if checkpoint.quantisation is None else CACHE_DTYPE
    return {
        "model": str(checkpoint.folder),
        "model_type": config.model_type,
        "text_part_of": config.wrapper,
        "other_parts": {
            part: {"tensors": tensors, "nbytes": size}
            for part, (tensors, size) in groups_of(checkpoint.other_tensors).items()
        },
        "parameters": checkpoint.num_parameters,
        "tensors": len(checkpoint.tensors),
        "files": sorted({info.file.name for info in checkpoint.tensors}),
        "dtypes": checkpoint.dtypes,
        "nbytes": checkpoint.nbytes,
        "bits_per_weight": checkpoint.bits_per_weight,
        "packed": describe_packing(checkpoint),
        "calibration": calibration_facts(checkpoint),
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "experts": experts_of(config),
        "layer_inputs": None if config.layer_inputs is None else asdict(config.layer_inputs),
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "context": config.max_positions,
        "layer_kinds": layer_kinds(config),
        "learned_positions": config.learned_positions,
        "tie_word_embeddings": config.tie_word_embeddings,
        "eos_token_ids": list(checkpoint.eos_token_ids),
        "cache_dtype": cache_dtype,
        "cache_bytes_per_token": config.cache_bytes_per_token(cache_dtype),
        "cache_bytes_full": config.cache_bytes(config.max_positions, cache_dtype),
        "adapters": [
            {
                "folder": str(adapter.folder),
                "scale": adapter.scale,
                "base": adapter.base,
                "ranks": sorted(adapter.ranks),
                "alpha": adapter.alpha,
                "parameters": sum(info.size for info in adapter.tensors),
            }
            for adapter in checkpoint.adapters
        ],
        "fingerprint": checkpoint.fingerprint,
    }


def describe_packing(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """How a quantised release packs its matrices; None where weights are stored as they are, or in our own layouts."""
    packing = checkpoint.packing
    if packing is None:
        return None
    return {
        "method": packing.method.name,
        "weights": packing.num_weights,
        "matrices": len(packing.matrices),
        "bits_per_weight": packing.bits_per_weight,
    }


def layer_kinds(config: ModelConfig) -> list[dict[str, Any]]:
    """How many layers there are of each kind: their rope (null: no rotary positions), sliding window, matrices of a
    recurrence and taps of a convolution, if any; heads and width where they are not the model's, and the layer, from 0
    on, whose keys and values they read."""
    return [
        {
            "layers": number,
            "window": kind.window,
            "rope_type": kind.rope.kind if kind.rope is not None else None,
            "rope_theta": kind.rope.theta if kind.rope is not None else None,
            "rotary_dim": kind.rope.dim if kind.rope is not None else 0,
            "matrices": None if kind.delta is None else kind.delta.value_heads,
            "taps": None if kind.convolution is None else kind.convolution.taps,
            "kv_heads": None if kind.heads is None else kind.heads.num_kv_heads,
            "head_dim": None if kind.heads is None else kind.heads.head_dim,
            "intermediate_size": kind.intermediate_size,
            "keys_of_layer": kind.source,
        }
        for kind, number in Counter(config.layers).items()
    ]


def experts_of(config: ModelConfig) -> dict[str, Any] | None:
    """The sizes of a mixture of experts, and how many layers have one."""
    mixture = config.mixture
    if mixture is None:
        return None
    return {
        "count": mixture.count,
        "chosen": mixture.chosen,
        "size": mixture.size,
        "shared_size": mixture.shared_size,
        "beside_dense": mixture.beside_dense,
        "layers": sum(kind.has_experts for kind in config.layers),
    }


def experts_in_words(experts: dict[str, Any]) -> str:
    """As in "2 of 6 experts of 20 numbers and a shared one of 40, in 3 layers"."""
    shared = f" and a shared one of {experts['shared_size']:,}" if experts["shared_size"] else ""
    dense = " beside a feed-forward" if experts["beside_dense"] else ""
    sizes = f"{experts['chosen']:,} of {experts['count']:,} experts of {experts['size']:,} numbers{shared}{dense}"
    return f"{sizes}, in {experts['layers']:,} layers"


def inputs_in_words(inputs: dict[str, Any]) -> str:
    """As in "256 numbers of each token for every layer, from a table that stays on the disk"."""
    return f"{inputs['size']:,} numbers of each token for every layer, from a table that stays on the disk"


def kind_in_words(kind: dict[str, Any], learned: bool) -> str:
    """One kind of layer, as in "5 of them: rotary (base 10,000), window of 512"."""
    if kind["taps"]:
        return f"{kind['layers']} with a convolution of {kind['taps']} positions"
    if kind["matrices"]:
        return f"{kind['layers']} with a recurrence of {kind['matrices']} matrices"
    plain = "learned positions" if learned else "no positions"
    scaling = "" if kind["rope_type"] in ("default", None) else f", {kind['rope_type']} scaling"
    rope = f"rotary (base {kind['rope_theta']:,.10g}{scaling})" if kind["rope_type"] else plain
    window = f"a window of {kind['window']:,}" if kind["window"] else "sees everything before"
    heads = f", {kind['kv_heads']} key-value heads of {kind['head_dim']}" if kind["head_dim"] else ""
    wide = f", an MLP of {kind['intermediate_size']:,}" if kind["intermediate_size"] else ""
    shared = f", keys and values of layer {kind['keys_of_layer'] + 1}" if kind["keys_of_layer"] is not None else ""
    return f"{kind['layers']} with {rope}, {window}{heads}{wide}{shared}"


def adapter_in_words(adapter: dict[str, Any]) -> str:
    """As in "fox-lora, 0.5 times, of rank 8, alpha 16, 1.2M parameters"."""
    times = "" if adapter["scale"] == 1 else f", {adapter['scale']:g} times"
    ranks, parameters = " and ".join(map(str, adapter["ranks"])), count(adapter["parameters"])
    return f"{adapter['folder']}{times}, of rank {ranks}, alpha {adapter['alpha']:g}, {parameters} parameters"


def packing_in_words(packed: dict[str, Any]) -> str:
    """As in "FP8: 14 matrices of 1,234 weights, 8.03 bits each, scales counted"."""
    weights, bits = f"{packed['weights']:,} weights", f"{packed['bits_per_weight']:.2f} bits each"
    return f"{packed['method']}: {packed['matrices']:,} matrices of {weights}, {bits}, scales counted"


def in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The same facts as rows for people."""
    dtypes = ", ".join(f"{name} ({count(size)})" for name, size in facts["dtypes"].items())
    shared = facts["heads"] // facts["kv_heads"]
    grouped = f" (each shared by {shared})" if shared > 1 else ""
    per_token, full = nbytes(facts["cache_bytes_per_token"]), nbytes(facts["cache_bytes_full"])
    stored = f"{facts['bits_per_weight']:.2f} bits per weight, {nbytes(facts['nbytes'])}"
    wrapper, packed = facts["text_part_of"], facts["packed"]
    others = ", ".join(
        f"{part} ({kinds['tensors']:,} tensors, {nbytes(kinds['nbytes'])})"
        for part, kinds in facts["other_parts"].items()
    )
    return [
        ("model", facts["model"]),
        ("family", facts["model_type"] + (f", the text part of {wrapper}" if wrapper else "")),
        *([("not read", others or "no other part")] if wrapper or others else []),
        ("parameters", f"{facts['parameters']:,} ({count(facts['parameters'])}) in {facts['tensors']:,} tensors"),
        ("stored as", f"{dtypes}, {stored} in {', '.join(facts['files'])}"),
        *([] if packed is None else [("packed by", packing_in_words(packed))]),
        *calibration_rows(facts["calibration"]),
        *([("experts", experts_in_words(facts["experts"]))] if facts["experts"] else []),
        *([("token inputs", inputs_in_words(facts["layer_inputs"]))] if facts["layer_inputs"] else []),
        ("layers", f"{facts['layers']}, hidden size {facts['hidden_size']:,}, MLP {facts['intermediate_size']:,}"),
        ("attention", f"{facts['heads']} heads of {facts['head_dim']}, {facts['kv_heads']} key-value heads{grouped}"),
        ("positions", "; ".join(kind_in_words(kind, facts["learned_positions"]) for kind in facts["layer_kinds"])),
        ("vocabulary", f"{facts['vocab_size']:,}, head {'tied' if facts['tie_word_embeddings'] else 'not tied'}"),
        ("ends with", ", ".join(f"token {token_id}" for token_id in facts["eos_token_ids"]) or "no end token named"),
        ("context", f"{facts['context']:,} positions"),
        ("cache", f"{per_token} per token in {facts['cache_dtype']}, {full} when full"),
        *(("adapter", adapter_in_words(adapter)) for adapter in facts["adapters"]),
        ("fingerprint", facts["fingerprint"][:16]),
    ]
