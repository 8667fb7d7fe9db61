"""All modes on the same prompts and seeds, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokenglass.model.decoding.modes import AUTOREGRESSIVE
from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.errors import ParameterError, TokenglassError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.measuring.comparison.divergence import Divergence, divergence
from tokenglass.model.measuring.comparison.modes import Variant
from tokenglass.model.measuring.comparison.passages import Passage, read_passages
from tokenglass.model.measuring.comparison.references import references
from tokenglass.model.measuring.comparison.rows import Row, mode_row, reference_row
from tokenglass.model.measuring.comparison.runs import TimedRun, TimedRuns, interleave, time_run
from tokenglass.model.measuring.comparison.scorer import Scorer
from tokenglass.model.measuring.comparison.speech import TOKENS, closes_speech
from tokenglass.model.measuring.comparison.texts import Share
from tokenglass.model.sampling.parameters import SamplingParameters


@dataclass(frozen=True, slots=True)
class Plan:
    """What every mode is asked. `prompts` None: those of the fixed stories."""

    sampling: SamplingParameters
    prompts: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (1, 2)
    tokens: int = 64
    rounds: int = 3

    def __post_init__(self) -> None:
        if not self.seeds or self.rounds < 1 or self.prompts == ():
            raise ParameterError("a comparison needs a prompt, a seed and a round at least")


@dataclass(frozen=True, slots=True)
class Refused:
    """A mode that is left out, and why."""

    mode: str
    reason: str


@dataclass(frozen=True, slots=True)
class TextDivergence:
    """A text that a lossless mode did not write as the autoregressive mode did."""

    mode: str
    prompt: int
    seed: int
    divergence: Divergence


@dataclass(slots=True)
class Comparison:
    """Work in steps: `try_modes`, then `measure`; then `rows` and `divergences` are there."""

    loaded: LoadedModel
    scorer: Scorer
    plan: Plan
    modes: list[Variant]
    refused: list[Refused] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    divergences: list[TextDivergence] = field(default_factory=list)
    _scores: dict[tuple[str, str], Share] = field(default_factory=dict)

    @property
    def stories(self) -> tuple[Passage, ...]:
        return read_passages("stories")

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.plan.prompts or tuple(passage.prompt for passage in self.stories)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One is enough where nothing is drawn."""
        return self.plan.seeds[:1] if self.plan.sampling.is_greedy else self.plan.seeds

    @property
    def requests(self) -> list[Request]:
        """Every prompt with every seed, seeds of a prompt side by side."""
        return [self.request(prompt, seed, self.plan.tokens) for prompt in self.prompts for seed in self.seeds]

    @property
    def steps(self) -> int:
        """Steps that `measure` takes, once the modes have been tried."""
        tasks = len(read_passages("speech")) * len(self.seeds)
        return len(self.modes) * (len(self.requests) * self.plan.rounds + tasks + 1) + 3

    def request(self, prompt: str, seed: int, tokens: int) -> Request:
        """A text of exactly so many tokens, as counts of n-grams of unequal texts could not be compared."""
        return Request(
            prompt_ids=self.loaded.tokenizer.encode(prompt),
            seed=seed,
            sampling=self.plan.sampling,
            max_new_tokens=tokens,
            eos_token_ids=self.loaded.eos_token_ids,
            ignore_eos=True,
            top=1,
        )

    def try_modes(self) -> None:
        """A warm-up; modes that this checkpoint cannot do leave, with their own reason. Raises TokenglassError where
        even the autoregressive one cannot, PromptError for a prompt that is too long."""
        for request in self.requests:
            check_length(request.prompt_ids, self.loaded.engine.limit)
        first, able = replace(self.requests[0], max_new_tokens=min(8, self.plan.tokens)), []
        for mode in self.modes:
            try:
                time_run(mode, first)
            except TokenglassError as error:
                if mode.name == AUTOREGRESSIVE:
                    raise
                self.refused.append(Refused(mode.name, str(error)))
            else:
                able.append(mode)
        self.modes = able

    def measure(self) -> Iterator[None]:
        """Yields after each text written, and after each row."""
        requests, count = self.requests, len(self.seeds)
        every: list[TimedRuns] = []
        for so_far in interleave(self.modes, requests, self.plan.rounds):
            every = so_far
            yield
        expected = next(runs for runs in every if runs.mode.name == AUTOREGRESSIVE)
        groups = [range(start, start + count) for start in range(0, len(requests), count)]
        for runs in every:
            task: list[list[bool]] = []
            for passage in read_passages("speech"):
                task.append([])
                for seed in self.seeds:
                    task[-1].append(closes_speech(time_run(runs.mode, self.request(passage.prompt, seed, TOKENS)).text))
                    yield
            self.rows.append(mode_row(runs, expected, groups, lambda n, text: self.bits(self.prompts[n], text), task))
            if runs.mode.lossless:
                self.divergences += self.find_divergences(runs, expected, requests)
            yield
        yield from self.refer()

    def refer(self) -> Iterator[None]:
        """The rows of the references, always on the fixed passages, cut to as many tokens."""
        stories, speech = self.stories, read_passages("speech")
        tokenizer = self.loaded.tokenizer
        answers = references(tokenizer, speech, TOKENS)
        for name, continued in references(tokenizer, stories, self.plan.tokens).items():
            texts = [[continued(passage, seed) for seed in self.seeds] for passage in stories]
            task = [[closes_speech(answers[name](passage, seed)) for seed in self.seeds] for passage in speech]
            row = reference_row(name, texts, lambda n, text: self.bits(stories[n].prompt, text), task)
            self.rows.append(row)
            yield

    def bits(self, prompt: str, text: str) -> Share:
        """The same text is scored once."""
        known = self._scores.get((prompt, text))
        if known is None:
            known = self._scores[prompt, text] = self.scorer.bits(prompt, text)
        return known

    def find_divergences(
        self, runs: TimedRuns, expected: TimedRuns, requests: Sequence[Request]
    ) -> list[TextDivergence]:
        divergences: list[TextDivergence] = []
        for place, request in enumerate(requests):
            wanted, written = ids_of(expected.by_request[place]), ids_of(runs.by_request[place])
            parting = divergence(self.loaded, request, wanted, written)
            if parting is not None:
                divergences.append(TextDivergence(runs.mode.name, place // len(self.seeds), request.seed, parting))
        return divergences


def ids_of(rounds: Sequence[TimedRun]) -> tuple[int, ...]:
    return rounds[0].token_ids
