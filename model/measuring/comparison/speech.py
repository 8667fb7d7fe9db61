"""The task: a prompt ends inside a speech, and the continuation has to close it. No torch here."""

from __future__ import annotations

MARK = '"'
TOKENS = 32  # that a mode has to do it in


def closes_speech(continuation: str) -> bool:
    """Whether the quotation marks of the first line take turns, from closing the speech on.

    A mark closes where no space stands before it and none but a space, the line's end or one of .,;:!?)' behind it; it
    opens where a space or ( stands before it and no space behind it. The last mark of a line that has ended closes; a
    line that is cut off may end in an open speech, but the first speech must be closed in any case.
    """
    line, ended, _ = continuation.partition("\n")
    is_open = True
    places = [place for place, char in enumerate(line) if char == MARK]
    for place in places:
        before, behind = line[:place][-1:], line[place + 1 : place + 2]
        closes = not before.isspace() and (not behind.strip() or behind in ".,;:!?)'")
        opens = (before.isspace() or before == "(") and bool(behind.strip() or not (behind or ended))
        if not (closes if is_open else opens):
            return False
        is_open = not is_open
    return bool(places) and not (ended and is_open)
