"""Every logits processor by its definition over the whole vocabulary, slow and plain: what the fast ones must equal."""

from __future__ import annotations

import functools
import itertools
import math
import sys
import types
from dataclasses import dataclass, field

import numpy as np

from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.parameters import SamplingParameters


class NothingLeftError(Exception):
    """Every token was cut, the last by the one it names."""


@dataclass
class Plain:
    """Scores (vocab,) and what was done to them; `margin` is how near a decision was to falling the other way."""

    scores: np.ndarray
    context: Context
    parameters: SamplingParameters
    margin: float = math.inf
    log: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)

    @functools.cached_property
    def p(self) -> types.SimpleNamespace:
        """The parameters by name."""
        return types.SimpleNamespace(**self.parameters.values)

    def run(self) -> np.ndarray:
        """The final distribution (vocab,)."""
        for mask in self.context.masks:
            allowed = np.ones(len(self.scores), bool) if mask.allowed is None else mask.allowed.copy()
            allowed[list(mask.removed)] = False
            self.change(mask.name, np.where(allowed, self.scores, -math.inf))
        for name in self.parameters.samplers:
            new = getattr(self, name.replace("-", "_"))()
            if name != "temperature":
                self.change(name, new)
            self.scores = new
            if name == "temperature" and 0 < self.p.temperature < 1:  # too small for a number; the scores stay
                below = new - new.max()
                self.log.append((name, new, np.where(below < math.log(sys.float_info.min), -math.inf, new)))
        if self.parameters.is_greedy:
            return (np.arange(len(self.scores)) == self.scores.argmax()).astype(float)
        return self.probs()

    def change(self, name: str, new: np.ndarray) -> None:
        if new.max() == -math.inf:
            raise NothingLeftError(name)
        self.log.append((name, self.scores, new))
        self.scores = new

    def removed_by(self, token_id: int) -> str | None:
        cut = (name for name, before, after in self.log if before[token_id] > -math.inf == after[token_id])
        return next(cut, None)

    def moves(self, token_id: int) -> dict[str, float]:
        until_cut = itertools.takewhile(lambda change: change[2][token_id] > -math.inf, self.log)
        return {
            name: after[token_id] - before[token_id]
            for name, before, after in until_cut
            if after[token_id] != before[token_id]
        }

    def probs(self) -> np.ndarray:
        weights = np.exp(self.scores - self.scores.max())
        return weights / math.fsum(weights)

    def order(self) -> list[int]:
        """Ids from the most probable down, ties by id."""
        return sorted(range(len(self.scores)), key=lambda token_id: (-self.scores[token_id], token_id))

    def only(self, mask: np.ndarray) -> np.ndarray:
        return np.where(mask, self.scores, -math.inf)

    def near(self, values: np.ndarray, border: float) -> None:
        distances = np.abs(np.asarray(values) - border)
        self.margin = min(self.margin, *distances.tolist(), math.inf)

    def text(self, *, new_only: bool = False) -> list[int]:
        """The tokens that penalties look at."""
        text = list(self.context.token_ids)
        start = self.context.prompt_length if new_only else 0
        return text[max(start, len(text) - self.p.penalty_window if self.p.penalty_window else 0) :]

    def logit_bias(self) -> np.ndarray:
        new = self.scores.copy()
        for token_ids, bias in self.p.logit_bias:
            for token_id in token_ids:
                new[token_id] += bias
        return new

    def repetition_penalty(self) -> np.ndarray:
        new = self.scores.copy()
        for token_id in set(self.text()):
            new[token_id] *= self.p.repetition_penalty if new[token_id] < 0 else 1 / self.p.repetition_penalty
        return new

    def presence_penalty(self) -> np.ndarray:
        new = self.scores.copy()
        for token_id in set(self.text(new_only=True)):
            new[token_id] -= self.p.presence_penalty
        return new

    def frequency_penalty(self) -> np.ndarray:
        new = self.scores.copy()
        for token_id in self.text(new_only=True):
            new[token_id] -= self.p.frequency_penalty
        return new

    def dry(self) -> np.ndarray:
        new, text = self.scores.copy(), self.text()
        breakers = self.p.dry_sequence_breakers
        longest: dict[int, int] = {}
        for place in range(1, len(text)):
            length = 0
            while length < min(place, 50) and text[place - 1 - length] == text[-1 - length] not in breakers:
                length += 1
            if text[place] not in breakers:
                longest[text[place]] = max(length, longest.get(text[place], 0))
        for token_id, length in longest.items():
            if length >= self.p.dry_allowed_length:
                new[token_id] -= self.p.dry_multiplier * self.p.dry_base ** (length - self.p.dry_allowed_length)
        return new

    def no_repeat_ngram(self) -> np.ndarray:
        new, text, size = self.scores.copy(), list(self.context.token_ids), self.p.no_repeat_ngram_size
        if size and len(text) >= size:
            for start in range(len(text) - size + 1):
                if text[start : start + size - 1] == text[len(text) - size + 1 :]:
                    new[text[start + size - 1]] = -math.inf
        return new

    def temperature(self) -> np.ndarray:
        return self.scores if self.parameters.is_greedy else self.scores / self.p.temperature

    def top_n_sigma(self) -> np.ndarray:
        if not self.p.top_n_sigma or self.parameters.is_greedy:
            return self.scores
        possible = self.scores[self.scores > -math.inf]
        least = self.scores.max() - self.p.top_n_sigma * possible.std()
        self.near(possible, least)
        return self.only(self.scores >= least)

    def top_k(self) -> np.ndarray:
        if not self.p.top_k or self.parameters.is_greedy:
            return self.scores
        return self.only(self.scores >= sorted(self.scores, reverse=True)[: self.p.top_k][-1])

    def top_p(self) -> np.ndarray:
        if self.p.top_p == 1 or self.parameters.is_greedy:
            return self.scores
        probs, mask, mass = self.probs(), np.zeros(len(self.scores), bool), 0.0
        for token_id in self.order():
            self.near([mass], self.p.top_p)
            if mass >= self.p.top_p:
                break
            mask[token_id] = True
            mass += probs[token_id]
        return self.only(mask)

    def min_p(self) -> np.ndarray:
        if not self.p.min_p or self.parameters.is_greedy:
            return self.scores
        probs = self.probs()
        ratios = probs / probs.max()
        if self.p.min_p < 1:
            self.near(ratios, self.p.min_p)
        return self.only(ratios >= self.p.min_p)

    def typical_p(self) -> np.ndarray:
        if self.p.typical_p == 1 or self.parameters.is_greedy:
            return self.scores
        probs = self.probs()
        possible = probs > 0
        surprise = np.full(len(probs), math.inf)
        surprise[possible] = -np.log(probs[possible])
        distance = np.abs(surprise - math.fsum(probs[possible] * surprise[possible]))
        mass = 0.0
        for token_id in sorted(np.flatnonzero(possible), key=lambda token_id: (distance[token_id], token_id)):
            widest = distance[token_id]
            mass += probs[token_id]
            self.near([mass], self.p.typical_p)
            if mass >= self.p.typical_p:
                break
        others = np.abs(distance - widest)
        self.near(others[others > 0], 0.0)
        return self.only((distance <= widest) & possible)

    def xtc(self) -> np.ndarray:
        key = (self.context.seed, self.context.position)
        if self.parameters.is_greedy or uniform(*key, stream=1, attempt=self.context.attempt) >= self.p.xtc_probability:
            return self.scores
        probs = self.probs()
        self.near(probs, self.p.xtc_threshold)
        reaching = [token_id for token_id in self.order() if probs[token_id] >= self.p.xtc_threshold]
        mask = np.ones(len(probs), bool)
        mask[reaching[:-1]] = False
        return self.only(mask)
