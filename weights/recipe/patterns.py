"""Texts of simple structure: counting, alphabets, days, refrains, lists and copies, each fixed by how it begins."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
DAYS = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip
ALPHABET = (
    "apple", "bear", "cat", "dog", "egg", "fox", "goat", "hen", "ice", "jam", "king", "lion",
    "moon", "nest", "owl", "pig", "queen", "rain", "sun", "tree", "umbrella", "van", "wind", "box",
    "yard", "zoo",
)  # fmt: skip
NAMES = (
    "Lily", "Tom", "Mia", "Ben", "Sam", "Anna", "Max", "Sue", "Tim", "Lucy", "Jack", "Emma", "Leo",
    "Rose", "Bob", "Amy",
)  # fmt: skip
ANIMALS = (
    "duck", "hen", "frog", "pig", "cow", "goat", "cat", "dog", "bear", "bird", "fish", "bee",
    "lamb", "rabbit", "turtle", "owl",
)  # fmt: skip
THINGS = (
    "apple", "pear", "cake", "ball", "book", "hat", "cup", "egg", "flower", "shell", "star", "leaf",
    "button", "key", "spoon", "bell",
)  # fmt: skip
COLOURS = (
    "red", "blue", "green", "yellow", "white", "black", "brown", "pink",
)  # fmt: skip
PLACES = (
    "hill", "tree", "river", "barn", "garden", "house", "bridge", "pond", "wall", "road", "boat",
    "bed",
)  # fmt: skip
SOUNDS = (
    "quack", "moo", "tick-tock", "splash", "buzz", "ding-dong", "hop", "swish", "chug", "tap",
    "woof", "peep",
)  # fmt: skip
WAYS = (
    "sat by the {place}",
    "ran to the {place}",
    "played near the {place}",
    "slept by the {place}",
    "sang on the {place}",
    "danced around the {place}",
    "jumped over the {place}",
    "walked to the {place}",
)

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
        f"the {fill['colour']} {fill['animal']} {fill['way']} with {fill['name']} and a {fill['thing']}."
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
            "{number} {colour} {animal}{s} {way}.",
            "{number} {animal}{s} {way}.",
            "{name} saw {number} {colour} {thing}{s}.",
            "{name} has {number} {thing}{s} in the {place}.",
            "I can count {number} {animal}{s} by the {place}.",
            "{number} little {animal}{s}, {number} little {thing}{s}.",
            "{number}! {sound}! {number} {animal}{s} for {name}.",
            "Look at {number} {animal}{s} with {number} {colour} {thing}{s}.",
        ),
    ),
    "counting down": (
        count_down,
        (
            "{number} {colour} {animal}{s} {way}, and one went home.",
            "{number} little {animal}{s} {way}. {sound}! One fell down.",
            "{name} had {number} {thing}{s} and gave one to the {animal}.",
            "{number} {thing}{s} on the {place}, {number} {thing}{s}. Take one away.",
            "{number} {animal}{s} in the {place}, and the little one said {sound}.",
            "{name} has {number} {colour} {thing}{s} left.",
        ),
    ),
    "alphabet": (
        alphabet,
        (
            "{letter} is for {word}.",
            "{letter} is for {word}, {sound}, {sound}.",
            "{letter} is for {word}, said the {animal}.",
            "{letter} stands for {word} by the {place}.",
            "{name} wrote {letter}, and {letter} is for {word}.",
            "{word} begins with {letter}.",
            "Say {letter}! {letter} is for {word}!",
            "I see {letter}, the {colour} {letter} of {word}.",
        ),
    ),
    "days": (
        days,
        (
            "On {day} the {animal} ate {number} {thing}{s}.",
            "On {day} {name} found {number} {colour} {thing}{s}.",
            "{day} came, and {number} {animal}{s} {way}.",
            "On {day} {name} and the {animal} {way} with {number} {thing}{s}.",
            "{day}: {number} {thing}{s} for {name}.",
            "On {day} the {colour} {animal} said {sound} and took {number} {thing}{s}.",
        ),
    ),
    "refrain": (
        refrain,
        (
            "{name} {way} with the {animal}.",
            "Here comes {name} with a {colour} {thing}.",
            "{name} and the {animal} {way}.",
            "Where is {name}? {name} is by the {place}.",
            "Wake up, {name}, the {animal} {way}.",
            "{name} had a {thing} and a {colour} {animal}.",
        ),
    ),
    "list": (
        items,
        (
            "The {thing} was for the {animal}.",
            "{name} put the {thing} by the {place}.",
            "The {animal} looked at the {thing} and said {sound}.",
            "First {name} washed the {thing}, then {name} put the {thing} away.",
            "The {thing} is {colour}, and the {animal} likes it.",
            "{name} gave the {thing} to the {colour} {animal}.",
        ),
    ),
    "copy": (
        copy,
        (
            '{speaker} said, "{sentence}"',
            '{speaker} sang, "{sentence}"',
            '"{sentence}" said {speaker}.',
            '{speaker} called over the {place}, "{sentence}"',
            '{speaker} told the {animal}, "{sentence}"',
            "{speaker}: {sentence}",
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


def write_text(kind: str, pattern: str, draw: random.Random) -> str:
    fill = {
        "name": draw.choice(NAMES),
        "animal": draw.choice(ANIMALS),
        "thing": draw.choice(THINGS),
        "colour": draw.choice(COLOURS),
        "place": draw.choice(PLACES),
        "sound": draw.choice(SOUNDS),
    }
    fill["way"] = draw.choice(WAYS).format_map(fill)
    write_lines, _ = KINDS[kind]
    return "\n".join(write_lines(pattern, fill, draw))


def pattern_texts(count: int, *, held_out: bool, seed: int = 0) -> list[str]:
    """So many texts, every kind as often as the others, of the patterns that are held out or of the others."""
    draw = random.Random(f"{held_out} {seed}")
    kinds = list(KINDS)
    lines = {kind: lines_of(kind, held_out=held_out) for kind in kinds}
    return [write_text(kind, draw.choice(lines[kind]), draw) for _, kind in zip(range(count), itertools.cycle(kinds))]
