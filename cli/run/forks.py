"""The forks of a run: where another token nearly came, and what would have followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenglass.cli.terminal.terminal import visible, visible_piece
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Candidate, Finish, Record
from tokenglass.model.runs.playback import Texts

if TYPE_CHECKING:
    from tokenglass.model.decoding.forks import Fork
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.engine.cache import KVCache
    from tokenglass.model.loaded_model import LoadedModel

BEFORE = 6  # tokens shown before a fork


@dataclass(slots=True)
class ForkWatch:
    """Follows the one text of a run over `cache`, to look for `count` forks in it when it has ended."""

    loaded: LoadedModel
    request: Request
    cache: KVCache
    count: int
    texts: Texts = field(default_factory=Texts)

    def watch(self, records: Iterator[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            if not isinstance(record, Finish):
                self.texts.add(record)
            yield record

    @property
    def in_words(self) -> str:
        """Each fork with both ways on; computes them."""
        from tokenglass.model.decoding.forks import find_forks
        from tokenglass.model.decoding.job import Job

        choices = self.texts.choices.get(0, [])
        forks = find_forks(Job.of(self.loaded, self.request), self.cache, choices, self.count)
        if not forks:
            return "no forks: no other token could have been drawn"
        return "\n".join(self._lines_of(fork) for fork in forks)

    def _lines_of(self, fork: Fork) -> str:
        from tokenglass.cli.widgets.widget import percent

        choice, greedy = fork.tie.choice, self.request.sampling.is_greedy
        number = choice.position - len(self.request.prompt_ids)
        before = self._said([each.token_id or 0 for each in self.texts.choices[0][max(0, number - BEFORE) : number]])
        chosen = next(each for each in choice.candidates if each.token_id == choice.token_id)
        lines = [f"fork at token {number + 1:,}, {percent(fork.difference)} of what follows is another: …{before}"]
        for candidate, way in ((chosen, fork.taken), (fork.tie.other, fork.other)):
            lines.append(f"  {share(candidate, greedy=greedy):>7} {visible_piece(candidate.piece)}  {self._said(way)}")
        return "\n".join(lines)

    def _said(self, token_ids: tuple[int, ...] | list[int]) -> str:
        text = b"".join(self.loaded.tokenizer.piece(token_id) for token_id in token_ids).decode("utf-8", "replace")
        return visible(" ".join(text.split()))


def share(candidate: Candidate, *, greedy: bool) -> str:
    from tokenglass.cli.widgets.widget import percent
    from tokenglass.model.decoding.forks import weight_of

    return percent(weight_of(candidate, greedy=greedy))


def watch_forks(loaded: LoadedModel, request: Request, cache: KVCache | None, count: int) -> ForkWatch | None:
    """Who looks for forks in the cache of a run, where some are asked for."""
    return None if cache is None or not count else ForkWatch(loaded, request, cache, count)


def check_forks(count: int, request: Request, *, is_single: bool) -> None:
    """Raises ParameterError where there is no one text to look ahead from."""
    if count and not (is_single and request.use_cache and not request.negative_ids):
        raise ParameterError(
            "--forks looks ahead in the cache of one text; leave out --no-cache, --num-samples, --beams and --negative"
        )
