"""A reading test: stories of several models, judged by a larger model and by three checks that a program can make.

    python -m tokenglass.weights.recipe.reading [MODEL ...] [--judge smollm2] [--tokens 150] [--texts 100]

Ten heroes begin ten stories each, seeds 1 to 100, temperature 0.8, top-p 0.95, whatever a model's own defaults. Prints
a row of a Markdown table for each model: bits per byte of what it wrote under the judge, and the share of texts that
fail each check.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.comparison.scorer import Scorer
from tokenglass.model.sampling.parameters import SamplingParameters

HEROES = (
    "a little girl named Lily", "a boy named Tim", "a small dog named Max", "a kind queen named Anna",
    "a brave mouse named Ben", "an old cat named Lucy", "a young bear named Tom", "a clever hen named Mia",
    "a shy rabbit named Sam", "a big red fox named Jack",
)  # fmt: skip
BEGINNINGS = (
    "Once upon a time, there was {hero}.",
    "One day, {hero} went to the park.",
    "In a house by the sea lived {hero}.",
    "There once was {hero} who loved to play.",
    "Deep in the forest lived {hero}.",
    "One sunny morning, {hero} found a shiny key.",
    "Long ago there was {hero} who was always hungry.",
    "It was raining, and {hero} was sad.",
    "Every night, {hero} looked at the moon.",
    "On a farm there lived {hero}. One day a new friend came.",
)
SAMPLING = SamplingParameters(temperature=0.8, top_p=0.95)
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b")  # in a sentence: at its beginning every word is capital
WORD = re.compile(r"\w+")
PRONOUN = re.compile(r"\b(?:(he|him|his|himself)|(she|her|hers|herself))\b", re.IGNORECASE)
SENTENCE = re.compile(r"[^.!?]*[.!?]+[\"']?|[^.!?]+$")
QUOTED = re.compile(r'"[^"]*"?')
# behind a noun, but not behind an adjective
NEXT = (
    r"(?=[^\w ]|$| (?:and|or|but|who|that|which|to|in|on|at|of|with|was|is|had|saw|said|were|for|from|near|by|into|so"
    r"|because|when|as|again|[a-z]+ed)\b)"
)
SAME_CLAUSE = r"(?: (?!(?:and|or|but|so|because|when|while|until|that|who|if)\b)\w+){1,5}"
ARTICLE = r"\b(?:the|a|an)(?: \w+)?"
SAME_NOUN = re.compile(rf"{ARTICLE} (?P<noun>\w+){NEXT}{SAME_CLAUSE} {ARTICLE} (?P=noun)\b{NEXT}", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tale"], help="names or checkpoint folders")
    parser.add_argument("--judge", default="smollm2", help="a model's name or checkpoint folder")
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--quantize", default="none", choices=["none", "int8", "int4"])
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    judge = load_model(resolve(options.judge), backend="auto", threads=options.threads)
    print(f"judged by {judge.name} in {judge.dtype}", flush=True)
    writers = (
        (name, load_model(resolve(name), quantize=options.quantize, backend="auto", threads=options.threads))
        for name in options.models
    )
    for line in reading_table(writers, judge, options.texts, options.tokens):
        print(line, flush=True)


def reading_table(
    writers: Iterable[tuple[str, LoadedModel]], judge: LoadedModel, texts: int = 100, tokens: int = 150
) -> Iterator[str]:
    """The lines of a Markdown table with a row for each writer."""
    scorer = Scorer(judge)
    yield "| reading test | bits per byte | a name changes its pronoun | unfinished | a noun meets itself |"
    yield "|---|---:|---:|---:|---:|"
    for name, writer in writers:
        yield row(name, list(write_stories(writer, openings()[:texts], tokens)), scorer)


def openings() -> list[str]:
    return [beginning.format(hero=hero) for beginning in BEGINNINGS for hero in HEROES]


def write_stories(loaded: LoadedModel, prompts: Sequence[str], tokens: int) -> Iterator[tuple[str, str]]:
    """Each prompt and what the model writes behind it, with a seed of its own."""
    for seed, prompt in enumerate(prompts, 1):
        request = Request(loaded.tokenizer.encode(prompt), seed, SAMPLING, tokens, loaded.eos_token_ids, top=0)
        yield prompt, "".join(record.text for record in decode(Job(loaded.engine, loaded.tokenizer, request)))


def row(name: str, stories: Sequence[tuple[str, str]], judge: Scorer) -> str:
    shares = [judge.bits(prompt, text) for prompt, text in stories]
    bits = sum(share.part for share in shares) / sum(share.whole for share in shares)
    texts = [prompt + text for prompt, text in stories]
    failures = [statistics.fmean(map(check, texts)) for check in (changes_pronoun, is_unfinished, meets_itself)]
    return f"| {name} | {bits:.3f} | {' | '.join(f'{share:.0%}' for share in failures)} |"


def changes_pronoun(text: str) -> bool:
    """Whether a name is `he` and `she`.

    Pronouns of a sentence with one name, and of those without a name behind it, are taken for that name's; a sentence
    with several names, and one that has both kinds of pronouns, tells nothing. Speech is left out.
    """
    story = QUOTED.sub("", text)
    every_name, kinds, name = set(NAME.findall(story)), dict[str, set[bool]](), ""
    for sentence in SENTENCE.findall(story):
        names = every_name & set(WORD.findall(sentence))
        name = names.pop() if len(names) == 1 else "" if names else name
        pronouns = {bool(she) for _, she in PRONOUN.findall(sentence)}
        if name and len(pronouns) == 1:
            kinds.setdefault(name, set()).update(pronouns)
    return any(len(of_name) == 2 for of_name in kinds.values())


def is_unfinished(text: str) -> bool:
    """Whether the last sentence does not end."""
    return not re.search(r"[.!?][\"']?\s*$", text)


def meets_itself(text: str) -> bool:
    """Whether a clause has one noun twice, each time with an article, as in `the fox saw the fox`."""
    return any(SAME_NOUN.search(sentence) for sentence in SENTENCE.findall(text))


if __name__ == "__main__":
    main()
