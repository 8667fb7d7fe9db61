"""Lines that are hard to cut into tokens: scripts, emoji, code, digits, runs of spaces, control characters."""

from __future__ import annotations

import random

PARTS = (
    *(
        "The fox said",
        "don't WE'LL i'm it's 'S 'RE",
        "naïve café",
        "e\u0301a\u0308",
        "Straße ẞ ſ",
        "Привет, мир",
        "Ελλάδα",
    ),
    *(
        "日本語のテキスト",
        "中文字符。",
        "한국어 텍스트",
        "שלום עולם",
        "مرحبا بالعالم",
        "नमस्ते दुनिया",
        "ภาษาไทย",
        "𝔘𝔫𝔦",
        "𠮷野家",
    ),
    *("👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "👍🏽", "☃️", "1️⃣", "😀😀😀"),
    *("0", "7", "42", "1234567890", "3.14159", "1,000,000", "٣٤٥", "½²Ⅷ", "2026-11-23T23:59", "0xFFee"),
    *(
        " ",
        "  ",
        "    ",
        "        ",
        "\t",
        "\t\t",
        "\n",
        "\n\n",
        "\r\n",
        " \n ",
        "\u00a0",
        "\u3000",
        "\u2009",
        "\u2028",
        "\u0085",
    ),
    *(
        "def f(x):\n    return x**2",
        "if (a&&b){c->d++;}",
        "</div>",
        "#include <a.h>",
        "`$x`",
        "http://a.b/c?d=e&f",
        "[[1,2],[3]]",
    ),
    *(
        "\x00",
        "\x01",
        "\x04",
        "\x0b",
        "\x0c",
        "\x1b[0m",
        "\x7f",
        "\x80",
        "\x9f",
        "\ufeff",
        "\u200b",
        "\u202e",
        "\ufffd",
        "\U000e0001",
    ),
    *("...", "!?!?", "———", "“quoted”", "«»", "€£¥", "∀x∈ℝ", "=>", "^~|+<", "_snake_case_", "\\n", "''", "'"),
)


def unicode_lines(count: int, seed: int = 0) -> list[str]:
    """Random sequences of such parts, some with any code point at all between them."""
    chance = random.Random(seed)
    return ["".join(part(chance) for _ in range(chance.randint(1, 12))) for _ in range(count)]


def part(chance: random.Random) -> str:
    if chance.random() < 0.1:
        point = chance.choice((chance.randrange(0x80), chance.randrange(0x800), chance.randrange(0x10000)))
        return "" if 0xD800 <= point < 0xE000 else chr(point)
    return chance.choice(PARTS) + chance.choice(("", "", " "))
