"""Soft targets: what a teacher with another vocabulary expects next, in tale's tokens (Hinton et al. 2015).

    python -m tokenglass.weights.recipe.distillation CORPUS --work DIR --start FOLDER [--source NAME] [--documents N]

Reads the simplest stories, or the sources named, with DIR/teacher (weights/recipe/teacher.py) and writes
DIR/SOURCE.targets.pt for each of them. It can be stopped at any moment and goes on where it was; two cores with AVX2
read 430 tokens a second.

**Vocabularies.** Where a token of tale begins at a character at which one of the teacher's begins too, the teacher's
probabilities hold for tale as well: each of its tokens counts for the token that tale would begin the same text with.
At other places, and where the text's own two tokens do not agree in this way, there is no soft target.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from tokenglass.model.errors import ParameterError, TokenglassError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.weights.recipe.corpus import SOURCES, TINY, Source, training_documents
from tokenglass.weights.recipe.schedule import CONTEXTS
from tokenglass.weights.recipe.vocabulary import VOCAB_SIZE, end_of_text

KEPT = 32  # tokens of each distribution
CANDIDATES = 64  # of the teacher's, of which they are made
CONTEXT = 1024  # of the teacher's tokens: stories are read one after the other
SAVE_EVERY = 100  # passages


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """Probabilities of KEPT tokens at each place of a stream; all zero where there is no soft target."""

    ids: Tensor  # (..., KEPT), int16
    shares: Tensor  # (..., KEPT), float16

    @classmethod
    def none(cls, *shape: int) -> SoftTargets:
        return cls(torch.zeros(*shape, KEPT, dtype=torch.int16), torch.zeros(*shape, KEPT, dtype=torch.float16))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> SoftTargets:
        return SoftTargets(self.ids[part], self.shares[part])

    @classmethod
    def stack(cls, parts: Sequence[SoftTargets]) -> SoftTargets:
        return cls(torch.stack([part.ids for part in parts]), torch.stack([part.shares for part in parts]))

    def cross_entropies(self, logits: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Nats of each place (...) for the text's own token, and for a distribution of which the teacher says `share`.

        What the teacher leaves out, all where there is no soft target, is the text's own token.
        """
        logprobs = F.log_softmax(logits, dim=-1)
        shares = share * self.shares.float()
        own = -logprobs.gather(-1, targets[..., None])[..., 0]
        soft = -(logprobs.gather(-1, self.ids.long()) * shares).sum(-1)
        return own, own * (1 - shares.sum(-1)) + soft


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenglass.weights.recipe.distillation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, help="the folder with stories-*.txt.xz")
    parser.add_argument("--work", type=Path, required=True, help="has teacher/")
    parser.add_argument("--start", type=Path, required=True, metavar="FOLDER", help="has the student's tokenizer.json")
    parser.add_argument("--source", action="append", choices=[s.name for s in SOURCES], help="may be given again")
    parser.add_argument("--documents", type=int, help="of each source (default: all)")
    options = parser.parse_args()
    try:
        loaded = load_model(options.work / "teacher", quantize="int8", backend="native")
        teacher = Teacher(loaded, Tokenizer.from_str((options.start / "tokenizer.json").read_text()))
        for source in [s for s in SOURCES if s.name in (options.source or [tiny.name for tiny in TINY])]:
            texts = list(itertools.islice(training_documents(options.corpus, source), options.documents))
            for done in write_targets(targets_path(options.work, source), teacher, texts):
                print(f"{source.name}: {done} of {len(texts)} documents", file=sys.stderr, flush=True)
    except (TokenglassError, ValueError, OSError) as error:
        parser.error(str(error))


class Teacher:
    """A model that reads stories and says what it expects, in the tokens of another vocabulary."""

    def __init__(self, loaded: LoadedModel, tokenizer: Tokenizer):
        self.engine = loaded.engine
        self.tokenizer = tokenizer
        self.own = loaded.tokenizer.backend
        self.end, self.own_end = end_of_text(tokenizer), end_of_text(self.own)
        self.first = first_tokens(loaded.tokenizer.pieces, tokenizer)
        self.first[[i for i in range(len(self.first)) if loaded.tokenizer.is_hidden(i)]] = VOCAB_SIZE
        self.first[[self.own_end, *loaded.eos_token_ids]] = self.end

    def passages(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """The texts, as many at a time as fit in CONTEXT of the teacher's tokens, at least one."""
        passage: list[str] = []
        length = 1
        for text in texts:
            size = len(self.own.encode(text, add_special_tokens=False).ids) + 1
            if passage and length + size > CONTEXT:
                yield passage
                passage, length = [], 1
            passage.append(text)
            length += size
        if passage:
            yield passage

    def targets(self, passage: Sequence[str]) -> SoftTargets:
        """What the teacher expects at each token of the texts and at the end token behind each."""
        read, places = [self.own_end], []
        for text in passage:
            theirs = self.own.encode(text, add_special_tokens=False)
            ours = self.tokenizer.encode(text, add_special_tokens=False)
            place_of = {start: len(read) - 1 + i for i, (start, _) in reversed(list(enumerate(theirs.offsets)))}
            read += [*theirs.ids, self.own_end]
            for token, (start, _) in zip(ours.ids, ours.offsets, strict=True):
                place = place_of.get(start, -1)
                places.append(place if place >= 0 and self.first[read[place + 1]] == token else -1)
            places.append(len(read) - 2)
        at = torch.tensor(places)
        has_target = at >= 0
        logits = torch.from_numpy(self.engine.forward([read[:-1]], None, last=None)[0])[at[has_target]]
        targets = SoftTargets.none(len(places))
        shares, candidates = logits.softmax(-1).topk(CANDIDATES)
        translated = torch.zeros(len(logits), VOCAB_SIZE + 1).scatter_add_(1, self.first[candidates], shares)
        best = translated[:, :VOCAB_SIZE].topk(KEPT)
        targets.ids[has_target] = best.indices.short()
        targets.shares[has_target] = best.values.half()
        return targets


def first_tokens(pieces: Sequence[bytes], tokenizer: Tokenizer) -> Tensor:
    """The token that the tokenizer begins each piece with; VOCAB_SIZE where the piece is no text."""
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return torch.tensor(
        [VOCAB_SIZE if not e.ids or "\ufffd" in text else e.ids[0] for text, e in zip(texts, encodings, strict=True)]
    )


def targets_path(work: Path, source: Source) -> Path:
    return work / f"{source.name}.targets.pt"


def write_targets(path: Path, teacher: Teacher, texts: Sequence[str]) -> Iterator[int]:
    """Add to the file until it has the soft targets of all texts; yields how many texts it has, now and then.

    Raises ParameterError where it has those of another vocabulary.
    """
    documents = 0
    parts: list[SoftTargets] = []
    if path.exists():
        state = load_state(path, teacher.tokenizer)
        documents, parts = state["documents"], [SoftTargets(state["ids"], state["shares"])]
    for number, passage in enumerate(teacher.passages(texts[documents:]), 1):
        parts.append(teacher.targets(passage))
        documents += len(passage)
        if number % SAVE_EVERY == 0 or documents == len(texts):
            parts = [SoftTargets(torch.cat([p.ids for p in parts]), torch.cat([p.shares for p in parts]))]
            state = {
                "vocabulary": fingerprint(teacher.tokenizer),
                "documents": documents,
                "ids": parts[0].ids,
                "shares": parts[0].shares,
            }
            torch.save(state, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
            yield documents


def read_targets(path: Path, tokenizer: Tokenizer) -> SoftTargets:
    """Those of a stream, whose first token is an end token and has none, as far as it was read.

    Raises ParameterError where they are too few for a row, or those of another vocabulary.
    """
    state, first = load_state(path, tokenizer), SoftTargets.none(1)
    targets = SoftTargets(torch.cat((first.ids, state["ids"])), torch.cat((first.shares, state["shares"])))
    if len(targets) <= CONTEXTS[-1]:
        raise ParameterError(
            f"{path} has the soft targets of {len(targets):,} tokens, and a row takes {CONTEXTS[-1]:,}: run "
            "tokenglass.weights.recipe.distillation for more documents"
        )
    return targets


def read_all_targets(work: Path, tokenizer: Tokenizer) -> dict[str, SoftTargets]:
    """Those of every source that has some. Raises what `read_targets` raises, and ParameterError where none has."""
    paths = {source.name: targets_path(work, source) for source in SOURCES}
    targets = {name: read_targets(path, tokenizer) for name, path in paths.items() if path.exists()}
    if not targets:
        raise ParameterError(f"no soft targets in {work}: run tokenglass.weights.recipe.distillation first")
    return targets


def load_state(path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["vocabulary"] != fingerprint(tokenizer):
        raise ParameterError(f"{path} has the soft targets of another vocabulary; move it away")
    return state


def fingerprint(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


if __name__ == "__main__":
    main()
