"""Texts of simple structure: counting, alphabets, days, refrains, lists and copies, each fixed by how it begins.

A quarter of those to train on are of patterns written by hand, which a model gets to know by heart; the lines of the
others are words of a story, or words at random, around what their kind needs: nothing but the lines before can tell.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from tokenglass.weights.recipe.pattern_words import (
    ALPHABET,
    ANIMALS,
    COLOURS,
    DAYS,
    ENDINGS,
    NAMES,
    NUMBERS,
    OPENINGS,
    PLACES,
    SOUNDS,
    THINGS,
    WAYS,
    WORDS,
)

# what a line of each kind says, in any order
SLOTS = {
    "counting up": ("{number} {noun}{s}",),
    "counting down": ("{number} {noun}{s}",),
    "alphabet": ("{letter}", "{word}"),
    "days": ("{day}", "{number} {noun}{s}"),
    "refrain": ("{name}",),
    "list": ("{thing}",),
    "copy": ("{speaker}", '"{sentence}"'),
}

LINE_WORDS = 14  # of a story, or at random, in one line; the most

Fill = dict[str, str]
Kind = Callable[[str, Fill, random.Random], list[str]]


def count_up(line: str, fill: Fill, draw: random.Random) -> list[str]:
    """Line after line with the next number; the heading tells where it ends."""
    last = draw.randint(5, 12)
    lines = [line.format_map(fill | number_fill(number)) for number in NUMBERS[:last]]
    return [f"Count to {NUMBERS[last - 1]}.", *map(capital, lines), "That is all."]


def count_down(line: str, fill: Fill, draw: random.Random) -> list[str]:
    last = draw.randint(5, 10)
    lines = [line.format_map(fill | number_fill(number)) for number in NUMBERS[last - 1 :: -1]]
    return [f"Count down from {NUMBERS[last - 1]}.", *map(capital, lines), "Now there are none."]


def alphabet(line: str, fill: Fill, draw: random.Random) -> list[str]:
    """The letters from one to another, each always with the same word."""
    first = draw.randrange(20)
    last = min(25, first + draw.randint(5, 12))
    letters = [(chr(65 + i), ALPHABET[i]) for i in range(first, last + 1)]
    heading = f"The letters from {letters[0][0]} to {letters[-1][0]}."
    return [
        heading,
        *(capital(line.format_map(fill | {"letter": letter, "word": word})) for letter, word in letters),
        "The end.",
    ]


def days(line: str, fill: Fill, draw: random.Random) -> list[str]:
    """A week, one more thing each day or the same."""
    more = draw.random() < 0.5
    lines = []
    for i, day in enumerate(DAYS):
        number = NUMBERS[i] if more else "one"
        lines.append(line.format_map(fill | number_fill(number) | {"day": day}))
    return ["One more each day." if more else "Every day the same.", *map(capital, lines), "And that was the week."]


def refrain(line: str, fill: Fill, draw: random.Random) -> list[str]:
    """Verses that differ in one word, listed first, and a refrain that is always the same."""
    names = draw.sample(NAMES, draw.randint(3, 6))
    sound = fill["sound"]
    chorus = draw.choice(
        (
            f"{sound}, {sound}, {sound}, all day long!",
            f"Oh, {sound}, {sound}, hear the {fill['animal']} go {sound}!",
            f"{sound} and {sound} and {sound} again, down by the {fill['place']}.",
        )
    )
    lines = [f"A song for {', '.join(names[:-1])} and {names[-1]}."]
    for name in names:
        lines += [capital(line.format_map(fill | {"name": name})), capital(chorus)]
    return [*lines, "And that is the end of the song."]


def items(line: str, fill: Fill, draw: random.Random) -> list[str]:
    """A list in one sentence, then a line for each of its items."""
    things = draw.sample(THINGS, draw.randint(4, 8))
    listed = ", ".join(f"the {thing}" for thing in things[:-1])
    heading = f"{fill['name']} took {listed} and the {things[-1]}."
    return [heading, *(capital(line.format_map(fill | {"thing": thing})) for thing in things), "Nothing was left."]


def copy(line: str, fill: Fill, draw: random.Random) -> list[str]:
    """One sentence, said by one after the other."""
    names = draw.sample(NAMES, draw.randint(3, 6))
    sentence = capital(
        f"the {fill['colour']} {fill['animal']} {fill['way']} with {fill['name']} and {fill['a_thing']}."
    )
    heading = f"{', '.join(names[:-1])} and {names[-1]} say it one after the other."
    return [
        heading,
        *(capital(line.format_map(fill | {"speaker": name, "sentence": sentence})) for name in names),
        "Well done!",
    ]


KINDS: dict[str, tuple[Kind, Sequence[str]]] = {
    "counting up": (
        count_up,
        (
            "{opening}{number} {colour} {animal}{s} {way}{ending}.",
            "{opening}{number} {animal}{s} {way}{ending}.",
            "{opening}{name} saw {number} {colour} {thing}{s}{ending}.",
            "{opening}{name} has {number} {thing}{s}{ending}.",
            "{opening}I can count {number} {animal}{s}{ending}.",
            "{opening}we met {number} {colour} {animal}{s}{ending}.",
            "{opening}the {animal} wants {number} {thing}{s}{ending}.",
            "{opening}here come {number} {animal}{s}{ending}.",
            "{number} little {animal}{s}, {number} little {thing}{s}{ending}.",
            "{number}! {cry}! {number} {animal}{s}{ending}.",
            "Look at {number} {animal}{s} with {number} {colour} {thing}{s}.",
        ),
    ),
    "counting down": (
        count_down,
        (
            "{opening}{number} {colour} {animal}{s} {way}, and one went home{ending}.",
            "{opening}{number} little {animal}{s} {way}. {cry}! One fell down{ending}.",
            "{opening}{name} had {number} {thing}{s} and gave one to the {animal}{ending}.",
            "{number} {thing}{s} on the {place}, {number} {thing}{s}. Take one away{ending}.",
            "{opening}{number} {animal}{s} in the {place}, and the little one said {sound}{ending}.",
            "{opening}the {animal} ate one of {number} {colour} {thing}{s}{ending}.",
            "{opening}{number} {thing}{s} stood{ending}.",
            "{opening}{name} counts {number} {animal}{s}{ending}.",
            "{name} has {number} {colour} {thing}{s} left.",
        ),
    ),
    "alphabet": (
        alphabet,
        (
            "{opening}{letter} is for {word}{ending}.",
            "{opening}{letter} is for {word}, {sound}, {sound}.",
            "{letter} is for {word}, said the {animal}{ending}.",
            "{opening}{letter} stands for {word}{ending}.",
            "{opening}{name} wrote {letter}, and {letter} is for {word}{ending}.",
            "{opening}{word} begins with {letter}{ending}.",
            "Say {letter}! {letter} is for {word}{ending}!",
            "{opening}the {animal} drew {letter} and thought of {word}{ending}.",
            "I see {letter}, the {colour} {letter} of {word}.",
        ),
    ),
    "days": (
        days,
        (
            "On {day} the {animal} ate {number} {thing}{s}{ending}.",
            "On {day} {name} found {number} {colour} {thing}{s}{ending}.",
            "{day} came, and {number} {animal}{s} {way}{ending}.",
            "On {day} {name} and the {animal} {way} with {number} {thing}{s}{ending}.",
            "{day}: {number} {thing}{s} for {name}{ending}.",
            "{opening}{name} bought {number} {thing}{s} on {day}{ending}.",
            "It was {day}, so the {colour} {animal} hid {number} {thing}{s}{ending}.",
            "{opening}{number} {animal}{s} came to tea on {day}{ending}.",
            "On {day} the {colour} {animal} said {sound} and took {number} {thing}{s}.",
        ),
    ),
    "refrain": (
        refrain,
        (
            "{opening}{name} {way} with the {animal}{ending}.",
            "Here comes {name} with a {colour} {thing}{ending}.",
            "{opening}{name} and the {animal} {way}{ending}.",
            "Where is {name}? {name} is by the {place}{ending}.",
            "Wake up, {name}, the {animal} {way}{ending}.",
            "{opening}the {animal} called {name}{ending}.",
            "{opening}{name} found a {colour} {thing}{ending}.",
            "Good night, {name}{ending}.",
            "{name} had {a_thing} and a {colour} {animal}.",
        ),
    ),
    "list": (
        items,
        (
            "{opening}the {thing} was for the {animal}{ending}.",
            "{opening}{name} put the {thing} by the {place}{ending}.",
            "{opening}the {animal} looked at the {thing} and said {sound}{ending}.",
            "First {name} washed the {thing}, then {name} put the {thing} away{ending}.",
            "{opening}the {thing} is {colour}, and the {animal} likes it{ending}.",
            "{opening}{name} lost the {thing}{ending}.",
            "Where is the {thing}? The {thing} is{ending}.",
            "{opening}the {colour} {animal} carried the {thing}{ending}.",
            "{name} gave the {thing} to the {colour} {animal}.",
        ),
    ),
    "copy": (
        copy,
        (
            '{opening}{speaker} said, "{sentence}"',
            '{speaker} sang{ending}, "{sentence}"',
            '"{sentence}" said {speaker}{ending}.',
            '{speaker} called over the {place}, "{sentence}"',
            '{opening}{speaker} told the {animal}, "{sentence}"',
            "{speaker}: {sentence}",
            '{opening}{speaker} heard it{ending}: "{sentence}"',
            '"{sentence}" {speaker} wrote in the {colour} book.',
        ),
    ),
}


def number_fill(number: str) -> Fill:
    return {"number": number, "s": "" if number == "one" else "s"}


def capital(line: str) -> str:
    return line[0].upper() + line[1:]


def lines_of(kind: str, *, held_out: bool) -> list[str]:
    """The patterns of a kind, their way of moving put in; the last line written above is held out, in every way."""
    lines = KINDS[kind][1]
    chosen = lines[-1:] if held_out else lines[:-1]
    return [line.replace("{way}", way) for line in chosen for way in (WAYS if "{way}" in line else ("",))]


def draw_line(kind: str, words: Sequence[str], draw: random.Random) -> str:
    """A pattern: up to LINE_WORDS of these words, one after the other, and anywhere between them the kind's SLOTS."""
    nouns = draw.sample(ANIMALS + THINGS, 2)
    count = min(draw.randint(1, LINE_WORDS), len(words))
    start = draw.randint(0, len(words) - count)
    parts = [word for word in words[start : start + count] if not {*"{}"} & {*word}]
    for slot in SLOTS[kind] * draw.choice((1, 1, 2)):
        parts.insert(draw.randint(0, len(parts)), slot.replace("{noun}", draw.choice(nouns)))
    return " ".join(parts).rstrip(",.!?") + draw.choice((".", ".", "!", "?", ",{ending}."))


def draw_fill(draw: random.Random) -> Fill:
    fill = {
        "name": draw.choice(NAMES),
        "other": draw.choice(NAMES),
        "animal": draw.choice(ANIMALS),
        "thing": draw.choice(THINGS),
        "colour": draw.choice(COLOURS),
        "place": draw.choice(PLACES),
        "sound": draw.choice(SOUNDS),
    }
    article = "an" if fill["thing"][0] in "aeiou" else "a"
    return fill | {
        "a_thing": f"{article} {fill['thing']}",
        "cry": capital(fill["sound"]),
        "way": draw.choice(WAYS).format_map(fill),
    }


def draw_ending(draw: random.Random) -> str:
    """Up to two of ENDINGS, each with words of its own."""
    return "".join(draw.choice(ENDINGS).format_map(draw_fill(draw)) for _ in range(draw.randint(1, 2)))


def write_text(kind: str, pattern: str, draw: random.Random) -> str:
    opening = draw.choice(OPENINGS).format_map(draw_fill(draw))
    fill = draw_fill(draw) | {"opening": opening, "ending": draw_ending(draw) or " there"}
    write_lines, _ = KINDS[kind]
    return "\n".join(write_lines(pattern, fill, draw))


def held_out_pattern_texts(count: int) -> list[str]:
    """So many texts of the patterns held out, every kind as often as the others."""
    draw = random.Random("True 0")  # figures that were published are of these texts
    return [write_text(kind, draw.choice(lines_of(kind, held_out=True)), draw) for kind in kinds_of(count)]


def pattern_texts(stories: Sequence[str], count: int) -> Iterator[str]:
    """So many texts to train on, every kind as often as the others."""
    draw = random.Random(0)
    lines = {kind: lines_of(kind, held_out=False) for kind in KINDS}
    for kind in kinds_of(count):
        origin = draw.randrange(4)
        if origin == 0:
            line = draw.choice(lines[kind])
        else:
            words = draw.sample(WORDS, LINE_WORDS) if origin == 1 else draw.choice(stories).split()
            line = draw_line(kind, words, draw)
        yield write_text(kind, line, draw)


def kinds_of(count: int) -> Iterator[str]:
    """The kinds of so many texts."""
    return itertools.islice(itertools.cycle(KINDS), count)
