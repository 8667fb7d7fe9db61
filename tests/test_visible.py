"""Nothing that a stranger chose reaches a terminal as it is: every command, every field, on a real pseudo-terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import hostile
import pytest
from forked import Printed, run_all
from hostile import HOSTILE, NAME

# What the program itself writes: colours, the cursor's place, modes, erasing; nothing of a title, clipboard or link.
OWN = re.compile(rb"\x1b(\[[0-9;]*[mHA]|\[[JK]|\[2K|\[\?(25|7|2026|1049)[hl]|[78D])")
STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
GENERATE = ("-n", "4", "--seed", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile.build(tmp_path_factory.mktemp("hostile"))


def commands(models: dict[str, Path], away: Path) -> dict[str, tuple[str, ...]]:
    """Every command on what it may meet, by name."""
    cases: dict[str, tuple[str, ...]] = {}
    for name, folder in models.items():
        cases[f"generate, {name}"] = ("generate", "-m", str(folder), "The fox", *GENERATE)
        cases[f"inspect, {name}"] = ("inspect", str(folder))
    named = str(models["folder name"])
    command: tuple[str, ...]
    for command in (
        ("inspect", named, "--json"),
        ("check", named),
        ("check", named, "--json"),
        ("quantize", named, str(away / f"made {NAME}")),
        ("quantize", named, str(away / f"made too {NAME}"), "--json", "--no-measure"),
        ("tokens", "-m", named, HOSTILE.replace("\x00", "")),
        ("flow", "-m", named, "The fox and the hen"),
        ("compare", "-m", named, "The fox", "--seeds", "1", "-n", "2", "--rounds", "1", "--modes", "jacobi"),
        ("generate", "-m", named, "The fox", *GENERATE, "--stats", "--jsonl"),
        ("generate", "-m", named, "The fox", *GENERATE, "--stats"),
        ("generate", "-m", named, "The fox", *GENERATE, "--view", "plain"),
        ("generate", "-m", named, "The fox", *GENERATE, "--num-samples", "2"),
        ("generate", "-m", named, "The fox", *GENERATE, "--mode", "parallel"),
        ("generate", "-m", named, "The fox", *GENERATE, "--draft-model", str(models["token"]), "--mode", "speculative"),
        ("import", named, str(away / "imported")),
        ("stdin=Hello\n", "chat", "-m", str(models["template"]), "-n", "2"),
        ("generate", "--chat", "-m", str(models["template"]), "Hello"),
        ("generate", "--chat", "-m", str(models["template's syntax"]), "Hello"),
        ("generate", "--chat", "--debug", "-m", str(models["template"]), "Hello"),
        ("stdin=q", "pick", "-m", named, NAME),
    ):
        cases["folder name: " + " ".join(command)] = command
    token = str(models["token"])
    for command in (
        ("tokens", "-m", token, NAME, "--json"),
        ("tokens", "-m", token, NAME),
        ("flow", "-m", token, NAME, "--jsonl"),
        ("flow", "-m", token, NAME),
        ("generate", "-m", token, NAME, "-n", "12", "--jsonl"),
        ("generate", "-m", token, NAME, "-n", "12"),
        ("generate", "-m", token, NAME, "-n", "12", "--color-by", "entropy"),
        ("generate", "-m", token, NAME, "-n", "12", "--beams", "2"),
        ("generate", "-m", token, NAME, "-n", "12", "--view", "plain", "--beams", "2"),
        ("generate", "-m", token, NAME, "-n", "12", "--view", "plain", "--echo", "--color", "always"),
        ("stdin=1234q", "pick", "-m", token, NAME),
    ):
        cases["token: " + " ".join(command)] = command
    for command in (
        ("generate", "-m", NAME, "x"),
        ("generate", "-m", f"ORG/{NAME}", "x"),
        ("generate", "--temperature", NAME, "x"),
        ("generate", "--view", NAME, "x"),
        ("generate", "--samplers", NAME, "x"),
        ("generate", "--logit-bias", NAME, "x"),
        ("generate", "--regex", NAME + "(", "x"),
        ("generate", "--grammar", NAME, "x"),
        ("generate", "--json-schema", NAME, "x"),
        ("generate", "--json-schema", "{" + NAME, "x"),
        ("generate", f"--{NAME}", "x"),
        ("generate", f"--{NAME}", "x", "--debug"),
        ("generate", "--prompt-file", NAME),
        ("pull", NAME),
        ("models", "rm", NAME),
        ("inspect", NAME),
        ("bench", NAME),
        ("import", NAME, NAME),
        ("compare", "--modes", NAME),
        ("quantize", "tale", NAME, "--format", NAME),
        (NAME,),
        ("quantize", "tale", str(away / "q"), "--text", NAME),
    ):
        cases["argument: " + " ".join(command)] = command
    return cases


def problems(name: str, printed: Printed, *, terminal: bool) -> list[str]:
    """What is wrong with what a command printed."""
    wrong = []
    output = printed.out if terminal else printed.err
    output = OWN.sub(b"", output) if terminal else output
    text = output.decode("utf-8", "surrogateescape")
    if match := STRANGE.search(text):
        wrong.append(f"{match[0]!r} in {text[max(0, match.start() - 60) : match.end() + 60]!r}")
    if "Traceback" in text and "--debug" not in name:
        wrong.append(f"a traceback: {text[-400:]!r}")
    if "internal error" in text:
        wrong.append(f"an internal error: {text[-400:]!r}")
    longest = max(map(len, text.replace("\r", "\n").split("\n")))
    unbroken = "--json" in name or "pick" in name  # a record is one line, and a screen is redrawn without any
    if (longest > 4000 and not unbroken) or (printed.code in (1, 2) and "--debug" not in name and longest > 700):
        wrong.append(f"a line of {longest} characters")
    if printed.code not in (0, 1, 2):
        wrong.append(f"exit code {printed.code}: {text[-300:]!r}")
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipes"])
def test_every_command_makes_every_field_visible(
    terminal: bool, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENGLASS_HOME", str(tmp_path / "home"))
    cases = commands(models, tmp_path)
    if not terminal:
        cases = {name: arguments for name, arguments in cases.items() if "pick" not in arguments}
    printed = run_all(cases, terminal=terminal)
    wrong = {name: faults for name, what in printed.items() if (faults := problems(name, what, terminal=terminal))}
    assert wrong == {}
    for name, what in printed.items():
        if "--json" in cases[name] and what.code == 0:
            text = (what.out.replace(b"\r\n", b"\n") if terminal else what.out).decode()
            json.loads(text[text.index("{") if "tokens" not in name else text.index("[") :])
