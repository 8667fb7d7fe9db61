"""Tiny real parts: random checkpoints written by transformers, tokenizers of each kind, a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine, Ids, Logits, PerRow, Rows
from tokenglass.model.sampling.raw import (
    DrawEach,
    Measure,
    MeasureEach,
    MeasureRows,
    draw_one_by_one,
    measure_later,
    measure_rows,
)
from tokenglass.model.torch_engine.storage import TensorCache
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.vocabulary import train_tokenizer

TEXTS = [
    "Once upon a time there was a little fox who lived in the forest. The fox said hello to the bear, and the bear",
    "said that the forest was cold. They were happy together, the fox and the bear, and so they lived in the house.",
    "Ein schöner Tag für Füße. Où est l'été? Ça va bien; naïve café. Привет, мир! 日本語のテキスト。日本語。 👩‍👩‍👧‍👦",
]
VOCAB_SIZE = 512

CONFIG = ModelConfig(
    model_type="llama",
    vocab_size=VOCAB_SIZE,
    hidden_size=32,
    intermediate_size=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=256,
    norm_eps=1e-5,
    layers=(LayerKind(Rope(theta=10000.0, dim=8)),) * 2,
    tie_word_embeddings=False,
    dtype="float32",
)


def save_llama(folder: Path, *, max_shard_size: str = "1GB", dtype: torch.dtype = torch.float32, **sizes: Any) -> Path:
    """Write a random Llama as transformers does; weights are wide enough for clear margins between tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  (takes seconds; few tests need it)

    defaults = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**defaults, **sizes})).to(dtype)  # type: ignore[arg-type]
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def random_transformer(config: ModelConfig = CONFIG) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "embed_" in name:
            torch.nn.init.normal_(weight)
    return model


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    """GPT-2's kind: every byte has a token; the start token comes from the post-processor."""
    return train_tokenizer(TEXTS)


def byte_fallback_tokenizer() -> tokenizers.Tokenizer:
    """Llama 2's kind: SentencePiece pieces, and a token per byte for every character without a piece."""
    tokenizer = tokenizers.Tokenizer(sentencepiece_model(byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_start_token(tokenizer)


def metaspace_tokenizer() -> tokenizers.Tokenizer:
    """The newer spelling of the same, without byte fallback: an unknown character is <unk>."""
    tokenizer = tokenizers.Tokenizer(sentencepiece_model(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return with_start_token(tokenizer)


def sentencepiece_model(*, byte_fallback: bool) -> models.BPE:
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXTS[:2], trainers.BpeTrainer(vocab_size=120, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    return models.BPE(
        vocab={token: token_id for token_id, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )


def with_start_token(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


class ScriptedEngine:
    """An engine whose logits after `length` tokens are `script(length)`; it keeps a real cache."""

    measure = Measure()
    measure_each: MeasureEach = staticmethod(measure_later)
    draw_each: DrawEach = staticmethod(draw_one_by_one)
    measure_rows: MeasureRows = staticmethod(measure_rows)
    vocab_size = VOCAB_SIZE

    def __init__(self, script: Callable[[int], Tensor], limit: int = 64):
        self.script = script
        self.limit = limit
        self.inputs: list[list[int]] = []

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        return TensorCache(CONFIG, rows=rows, limit=self.limit, dtype=torch.float32, device=torch.device("cpu"))

    def forward(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> list[Logits]:
        rows = Rows.of(token_ids, last, block, self.vocab_size)
        self.inputs.extend(rows.token_ids)
        ends = rows.counts
        if cache is not None:
            cache.reserve(rows.counts)
            cache.advance(rows.token_ids, rows.blocks)
            ends = cache.lengths
        return [
            np.stack([self.script(position).numpy() for position in range(end - count + 1, end + 1)])
            for end, count in zip(ends, rows.outputs, strict=True)
        ]


ENGINE: type[Engine] = ScriptedEngine  # it implements the protocol


def says(*token_ids: int, after: int) -> Callable[[int], Tensor]:
    """A script that, `after` prompt tokens, is sure of each of these ids in turn (and then of the last for ever)."""

    def script(length: int) -> Tensor:
        logits = torch.zeros(VOCAB_SIZE)
        logits[token_ids[min(max(length - after, 0), len(token_ids) - 1)]] = 30.0
        return logits

    return script


def new_tokens(records: Sequence[Any]) -> list[int]:
    """The ids that the steps among these records settled on."""
    return [choice.token_id for record in records for choice in getattr(record, "choices", ())]
