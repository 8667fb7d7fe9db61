"""The words that texts of simple structure are made of."""

from __future__ import annotations

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
    "duck", "hen", "frog", "pig", "cow", "goat", "cat", "dog", "bear", "bird", "kitten", "bee",
    "lamb", "rabbit", "turtle", "owl",
)  # fmt: skip
THINGS = (
    "apple", "pear", "cake", "ball", "book", "hat", "cup", "egg", "flower", "shell", "star", "ring",
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
# what may stand before and behind a line, so that no line can be known by heart and each must be read to go on
OPENINGS = (
    "", "", "", "in the morning ", "after lunch ", "before bed ", "{name} said that ", "once again ", "far away ",
    "by the {place} ", "in the {colour} {place} ", "when the {animal} slept, ", "while it rained, ", "very slowly, ",
    "oh look, ", "if {name} is right, ", "near the {animal}'s {place} ", "with a {sound}, ", "all at once, ",
    "because the {place} was {colour}, ", "for the {colour} {animal}, ", "yes, ", "one day ",
)  # fmt: skip
ENDINGS = (
    "", "", " by the {place}", " in the {place}", " under the {colour} {place}", " for {name}", " with {name}",
    " with {name} and {other}", " and {a_thing}", " near {name}'s {place}", " before the {animal} woke up",
    " because {name} asked", " until the {place} was {colour}", " and the {animal} {way}", " like the {animal}",
    " as {colour} as {a_thing}", " behind the {thing}", " from the {place} to the bridge", " in the rain", " at night",
    " far from home", ", and {name} laughed", ", but the {animal} said {sound}", ", {sound}, {sound}",
    " next to the {thing} and the {animal}", " without {a_thing}", " on top of the {colour} {thing}",
    " again and again", " where {name} lives", " after the {animal} and {other} went home",
)  # fmt: skip

OTHERS = (
    "what", "was", "they", "made", "and", "both", "than", "you", "down", "little", "over", "how", "him", "before",
    "only", "your", "she", "upon", "must", "good",
)  # fmt: skip
ALL = (*OPENINGS, *ENDINGS, *WAYS, *NAMES, *ANIMALS, *THINGS, *COLOURS, *PLACES, *SOUNDS, *ALPHABET, *OTHERS)
# what a line may have anywhere: every word but those that what follows them must agree with
WORDS = sorted({word for text in ALL for word in text.replace(",", "").split() if word.isalpha()} - {"a", "an", "one"})
