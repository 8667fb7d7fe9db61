"""A choice unfolded: its distribution after each processor, at other temperatures, and drawn from again."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokenglass.model.records.steps import Choice
from tokenglass.model.sampling.chain import GREEDY, apply_part, build_chain, parts_in_order
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.draw import AGAIN_STREAM, uniform
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.provenance import Floats
from tokenglass.model.sampling.raw import Raw
from tokenglass.model.sampling.sampler import Sampler, final_probs, inverse_cdf
from tokenglass.model.sampling.scores import Scores

MOST_NBYTES = 64 * 2**20  # of logits that are kept


@dataclass(frozen=True, slots=True)
class Stage:
    """A distribution over the whole vocabulary: some tokens' probabilities, and what sums say of all."""

    name: str  # of the processor or the mask behind which it stands
    settings: str
    probs: tuple[float, ...]
    num_possible: int
    entropy: float  # bits

    @property
    def others(self) -> float:
        """What the tokens that are not named have together."""
        return max(0.0, 1.0 - math.fsum(self.probs))


@dataclass(frozen=True, slots=True)
class KeptChoice:
    """What a choice was made of: it can be made again."""

    parameters: SamplingParameters
    raw: Raw
    context: Context

    def stages(self, token_ids: Sequence[int]) -> list[Stage]:
        """The raw distribution, then that after each mask and processor that is on; the last is the final one."""
        named = np.array(token_ids, np.int64)
        scores = Scores(self.raw, self.context, len(named))
        stages = [stage_of("raw", "", scores, named)]
        for part in parts_in_order(build_chain(self.parameters), self.context.masks):
            apply_part(part, scores)
            settings = "" if isinstance(part, Mask) else part.description
            stages.append(stage_of(part.name, settings, scores, named))
        if self.parameters.is_greedy:
            first = int(scores.token_ids[0])
            stages.append(Stage(GREEDY, "0", tuple(float(token_id == first) for token_id in token_ids), 1, 0.0))
        return stages

    def at_temperature(self, token_ids: Sequence[int], temperature: float) -> Stage:
        """The final distribution if the temperature were another."""
        final = self._final(self.parameters.replace(temperature=temperature))
        possible = final[final > 0]
        entropy = -float((possible * np.log2(possible)).sum())
        return Stage(GREEDY, f"{temperature:g}", tuple(final[list(token_ids)].tolist()), len(possible), entropy)

    def draw_again(self, count: int) -> dict[int, int]:
        """How often each token comes in so many more draws from the final distribution; those that came."""
        key = self.context.seed, self.context.position
        draws = np.array([uniform(*key, stream=AGAIN_STREAM, attempt=number) for number in range(count)])
        final = self._final(self.parameters)
        token_ids, counts = np.unique(inverse_cdf(np.arange(len(final)), final, draws), return_counts=True)
        return dict(zip(token_ids.tolist(), counts.tolist(), strict=True))

    def _final(self, parameters: SamplingParameters) -> Floats:
        return Sampler(parameters, bytes).distribution(self.raw, self.context).final


class ChoiceLog:
    """What the newest choices were made of, as many as there is room for."""

    def __init__(self, parameters: SamplingParameters, nbytes: int = MOST_NBYTES):
        self._parameters = parameters
        self._room = nbytes
        self._kept: OrderedDict[tuple[object, ...], KeptChoice] = OrderedDict()

    def keep(self, choice: Choice, raw: Raw, context: Context) -> None:
        """Called once a choice is made, while the logits are still there."""
        raw = replace(raw, logits=raw.logits.copy())
        negative = None if context.negative is None else context.negative.copy()
        context = replace(context, token_ids=tuple(context.token_ids), array=None, negative=negative)
        self._kept[key_of(choice)] = KeptChoice(self._parameters, raw, context)
        while len(self._kept) > max(1, self._room // raw.logits.nbytes):
            self._kept.popitem(last=False)

    def find(self, choice: Choice) -> KeptChoice | None:
        """None for one that is too old, or was not made by the sampler."""
        return self._kept.get(key_of(choice))


def key_of(choice: Choice) -> tuple[object, ...]:
    """What tells a choice from another at its place, whatever became of its candidates and its status."""
    return choice.position, choice.token_id, choice.logprob, choice.draw


def stage_of(name: str, settings: str, scores: Scores, token_ids: np.ndarray) -> Stage:
    probs = final_probs(scores, token_ids)
    return Stage(name, settings, tuple(probs), len(scores.possible), scores.entropy / math.log(2))
