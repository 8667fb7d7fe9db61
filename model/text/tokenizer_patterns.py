"""Whether a regular expression of a tokenizer is sure to be quick on any text, from its form alone.

A backtracking matcher reads n characters in about n steps from each place where it begins, if no branch repeats without
end more than once, or twice with nothing behind that has to match, and no group is repeated without end (Kirrage,
Rathnayake and Thielecke 2013, "Static Analysis for Regular Expression Denial-of-Service Attacks").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MAX_LENGTH = 4096  # characters of a pattern
MAX_REPEATS = 8  # more or less of one part count as without end
MAX_CHOICES = 8  # one behind another: each may double the ways to read a text
ESCAPE = re.compile(r"\\(?:[pPx]\{[^}]*\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{1,2}|[^0-9kgcCM])", re.DOTALL)
GROUP = re.compile(r"\((?:\?(?:[imsxa-]*:|[=!>]|<[=!]|<\w+>))?")
SWITCH = re.compile(r"\(\?[imsxa-]+\)")
REPEAT = re.compile(r"[*+?]|\{\d*,?\d*\}")


class NotSure(Exception):  # noqa: N818  (an answer, more than an error)
    """The form of a pattern does not tell how long it takes."""


@dataclass(frozen=True, slots=True)
class Form:
    """What one part of a pattern may do."""

    endless: int = 0  # repetitions without end, one behind another
    choices: int = 0  # other parts that can be read in more ways than one, one behind another
    must_follow: bool = False  # whether something behind the last endless one has to match
    may_be_empty: bool = False

    def then(self, other: Form) -> Form:
        must_follow = self.must_follow or bool(self.endless and not other.may_be_empty)
        must_follow = other.must_follow if other.endless else must_follow
        empty = self.may_be_empty and other.may_be_empty
        return Form(self.endless + other.endless, self.choices + other.choices, must_follow, empty)

    def either(self, other: Form) -> Form:
        return Form(
            max(self.endless, other.endless),
            max(self.choices, other.choices),
            self.must_follow or other.must_follow,
            self.may_be_empty or other.may_be_empty,
        )

    @property
    def is_quick(self) -> bool:
        return self.choices <= MAX_CHOICES and (self.endless <= 1 or (self.endless == 2 and not self.must_follow))


def form_of(pattern: str) -> Form:
    """The form of a pattern that is sure to be quick. Raises NotSure."""
    if len(pattern) > MAX_LENGTH:
        raise NotSure
    try:
        form, end = read_branches(pattern, 0, 0)
    except RecursionError:
        raise NotSure from None
    if end != len(pattern):
        raise NotSure
    return form


def read_branches(pattern: str, place: int, depth: int) -> tuple[Form, int]:
    """Alternatives up to the end of their group, and where that is."""
    if depth > 32:
        raise NotSure
    form: Form | None = None
    branch = Form(may_be_empty=True)
    while True:
        char = pattern[place : place + 1]
        if char in ("|", ")", ""):
            if not branch.is_quick:
                raise NotSure
            form = branch if form is None else form.either(branch)
            if char != "|":
                return form, place
            branch = Form(may_be_empty=True)
            place += 1
        else:
            part, place = read_repeated(pattern, place, depth)
            branch = branch.then(part)


def read_repeated(pattern: str, place: int, depth: int) -> tuple[Form, int]:
    """One part with the repetition behind it."""
    is_group = pattern[place] == "("
    part, place = read_part(pattern, place, depth)
    repeat = REPEAT.match(pattern, place)
    if repeat is None:
        return part, place
    least, most = limits(repeat[0])
    place = repeat.end()
    if pattern[place : place + 1] in ("?", "+") and repeat[0][0] != "{":  # lazy or possessive
        place += 1
    if REPEAT.match(pattern, place):
        raise NotSure
    if most - least > MAX_REPEATS:  # without end, or as good as that
        if is_group or part.may_be_empty:
            raise NotSure
        return Form(1, may_be_empty=least == 0), place
    if part.endless and most > 1:
        raise NotSure
    choices = part.choices * int(most) + (least != most)
    return Form(part.endless, choices, part.must_follow, part.may_be_empty or least == 0), place


def limits(repeat: str) -> tuple[int, float]:
    if repeat[0] != "{":
        return {"*": (0, float("inf")), "+": (1, float("inf")), "?": (0, 1)}[repeat]
    least, comma, most = repeat[1:-1].partition(",")
    if not least and not most:
        raise NotSure
    first = int(least or 0)
    return first, int(most) if most else float("inf") if comma else first


def read_part(pattern: str, place: int, depth: int) -> tuple[Form, int]:
    """A character, a class, or a group."""
    if switch := SWITCH.match(pattern, place):
        return Form(may_be_empty=True), switch.end()
    char = pattern[place]
    if char == "(":
        group = GROUP.match(pattern, place)
        assert group is not None
        if pattern[group.end() : group.end() + 1] == "?":
            raise NotSure
        inside, end = read_branches(pattern, group.end(), depth + 1)
        if pattern[end : end + 1] != ")":
            raise NotSure
        looks = group[0] in ("(?=", "(?!", "(?<=", "(?<!")
        if looks and inside.endless:
            raise NotSure
        several = "|" in pattern[group.end() : end]
        return replace(inside, choices=inside.choices + several), end + 1  # what looks around has to match too
    if char == "\\":
        escape = ESCAPE.match(pattern, place)
        if escape is None:
            raise NotSure
        is_place = escape[0][1] in "bBAzZGK"
        return Form(may_be_empty=is_place), escape.end()
    if char == "[":
        return Form(), end_of_class(pattern, place)
    if char in "*+?":
        raise NotSure
    return Form(may_be_empty=char in "^$"), place + 1


def end_of_class(pattern: str, place: int) -> int:
    """Where a class that begins here ends; classes stand in classes, and a ] that comes first is one of them."""
    depth = 0
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            place += 1
        elif char == "[":
            depth += 1
            place += pattern.startswith("^", place + 1)
            place += pattern.startswith("]", place + 1)
        elif char == "]":
            depth -= 1
            if not depth:
                return place + 1
        place += 1
    raise NotSure
