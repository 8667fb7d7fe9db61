"""What a model thinks before it answers, told apart from the answer while the text comes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tokenglass.model.text.tokenizer import Tokenizer

WINDOW = 16  # last tokens of a prompt that may open a thought


@dataclass(frozen=True, slots=True)
class Tags:
    """What stands before and behind a thought. Where they are special tokens, no text holds them, only their ids do."""

    begin: str
    end: str
    begin_id: int | None = None
    end_id: int | None = None


TAGS = (  # of DeepSeek-R1, Qwen3 and many others; Mistral; Cohere; Seed-OSS; models that were told to think in tags
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<thought>", "</thought>"),
    Tags("<reasoning>", "</reasoning>"),
)


def tags_of(template: str, tokenizer: Tokenizer) -> Tags:
    """The tags that the tokenizer has as tokens, else those that the template names, else the usual ones."""
    special = tokenizer.special_tokens
    for tags in TAGS:
        begin, end = (tokenizer.backend.token_to_id(name) for name in (tags.begin, tags.end))
        if begin is not None and end is not None:
            return Tags(tags.begin, tags.end, begin if begin in special else None, end if end in special else None)
    return next((tags for tags in TAGS if tags.begin in template and tags.end in template), TAGS[0])


@dataclass(slots=True)
class Thoughts:
    """One answer, split as it comes: its `thought`, which may stand at its beginning only, and what is `said` then."""

    tags: Tags = TAGS[0]
    is_thinking: bool = False
    thought: str = ""
    said: str = ""
    _waiting: str = field(default="", repr=False)  # may be the beginning of a tag
    _is_over: bool = field(default=False, repr=False)
    _between: str = field(default="", repr=False)  # of the characters between a thought and what is said

    @staticmethod
    def behind(prompt_ids: Sequence[int], tags: Tags, tokenizer: Tokenizer) -> Thoughts:
        """The beginning of an answer; a template may open the thought itself."""
        text = b"".join(map(tokenizer.piece, prompt_ids[-WINDOW:])).decode("utf-8", "replace")
        return Thoughts(tags, is_thinking=text.rstrip().endswith(tags.begin))

    @staticmethod
    def over(said: str, thought: str, tags: Tags) -> Thoughts:
        """An answer that has begun to speak."""
        return Thoughts(tags, thought=thought, said=said, _is_over=True)

    def add(self, text: str, token_ids: Collection[int] = ()) -> tuple[str, str]:
        """More of the answer, and the tokens that were chosen: what of it is thought, and what is said."""
        if self._is_over:
            return self._take("", text)
        if self.tags.begin_id in token_ids and not self.is_thinking:
            self.is_thinking = True
        elif self.tags.end_id in token_ids and self.is_thinking:
            thought, self._waiting = self._waiting + text, ""
            return self._end(thought, "")
        return self._split(self._waiting + text)

    def flush(self) -> tuple[str, str]:
        """What was held back, at the end of the answer."""
        text, self._waiting = self._waiting, ""
        return self._take(text, "") if self.is_thinking else self._take("", text)

    def _split(self, text: str) -> tuple[str, str]:
        if not self.is_thinking:
            opening = text.lstrip()
            if self.tags.begin.startswith(opening):  # not yet whole, or nothing but space
                if opening != self.tags.begin:
                    self._waiting = text
                    return "", ""
            elif not opening.startswith(self.tags.begin):
                self._waiting, self._is_over = "", True
                return self._take("", text)
            self.is_thinking, text = True, opening[len(self.tags.begin) :]
        thought, end, said = text.partition(self.tags.end)
        if end:
            self._waiting = ""
            return self._end(thought, said)
        length = common_end(text, self.tags.end)
        self._waiting = text[len(text) - length :]
        return self._take(text[: len(text) - length], "")

    def _end(self, thought: str, said: str) -> tuple[str, str]:
        self.is_thinking, self._is_over, self._between = False, True, "\n"
        return self._take(thought, said)

    def _take(self, thought: str, said: str) -> tuple[str, str]:
        if not self.said:
            said = said.lstrip(self._between)
        self.thought += thought
        self.said += said
        return thought, said


def common_end(text: str, tag: str) -> int:
    """How many last characters of the text may be the beginning of the tag."""
    return next(size for size in range(min(len(text), len(tag) - 1), -1, -1) if text.endswith(tag[:size]))
