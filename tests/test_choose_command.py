"""tokenglass choose, through real pipes and on real terminals."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, bash, tokenglass
from terminal import Terminal

PROMPT = "Once upon a time there was a little"
ANSWERS = (" girl", " boy", " boy named Tim")


def test_a_pipe_gets_the_best_answer_and_nothing_else() -> None:
    for done in (
        tokenglass("choose", *ANSWERS, stdin=PROMPT.encode() + b"\n"),
        tokenglass("choose", "--prompt", PROMPT, *ANSWERS),
    ):
        assert done.stdout == b" girl\n"
        assert done.stderr == b""
        assert done.returncode == 0


def test_json_tells_everything(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT + "\n")
    facts = json.loads(tokenglass("choose", "--json", "--prior", "--prompt-file", str(file), *ANSWERS).stdout)
    assert [answer["text"] for answer in facts["answers"]] == list(ANSWERS)
    assert sum(answer["prob"] for answer in facts["answers"]) == pytest.approx(1)
    assert 0 < facts["outside"] < 1
    assert all(answer["prior_logprob"] < 0 for answer in facts["answers"])
    tim = facts["answers"][2]
    assert [token["piece"] for token in tim["tokens"]] == [" boy", " named", " Tim"]
    assert tim["logprob"] == pytest.approx(sum(token["logprob"] for token in tim["tokens"]))
    assert facts["best"] == max(facts["answers"], key=lambda answer: answer["prob"])["text"]
    assert facts["parting"]["index"] == 0


def test_the_mean_per_token_may_choose_another() -> None:
    facts = json.loads(tokenglass("choose", "--json", "--by", "mean", "-p", PROMPT, " frog", " boy named Tim").stdout)
    assert facts["by"] == "mean"
    assert facts["best"] == max(facts["answers"], key=lambda answer: answer["mean_logprob"])["text"]


def test_a_script_can_expect_an_answer() -> None:
    assert tokenglass("choose", "-p", PROMPT, *ANSWERS, "--expect", " girl").returncode == 0
    done = tokenglass("choose", "-p", PROMPT, *ANSWERS, "--expect", " boy")
    assert done.returncode == 1
    assert done.stdout == b" girl\n"


def test_turning_the_list_averages_over_as_many_orders() -> None:
    prompt = "There was a cat, a dog and a fox. The best of them was the"
    facts = json.loads(tokenglass("choose", "--json", "--rotate", "-p", prompt, " cat", " dog", " fox").stdout)
    assert facts["orders"] == 3


def test_a_prompt_that_ends_in_a_space_says_that_it_was_healed() -> None:
    facts = json.loads(tokenglass("choose", "--json", "-p", PROMPT + " ", "girl", "boy").stdout)
    assert facts["healed"] == " "
    assert facts["best"] == "girl"


def test_questions_are_answered_a_line_each_and_a_bad_one_does_not_stop_the_rest() -> None:
    lines = [
        {"id": "a", "prompt": PROMPT, "answers": [" girl", " boy"]},
        {"id": 2, "prompt": PROMPT},
        {"id": 3, "prompt": PROMPT, "answers": [" girl"]},
        {"prompt": PROMPT, "messages": [], "id": {"of": []}},
        {"id": 5, "messages": [{"role": "user", "content": "Hi"}], "answers": ["a", "b"]},
        {"id": "z", "prompt": PROMPT + " red", "answers": [" fox", " ball"]},
    ]
    questions = "\n".join(map(json.dumps, lines[:3])) + "\nnonsense\n\n[1]\n" + "\n".join(map(json.dumps, lines[3:]))
    done = tokenglass("choose", "--jsonl", " girl", " frog", stdin=b"\xef\xbb\xbf" + questions.encode())
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [line["id"] for line in answers] == ["a", 2, 3, None, None, None, 5, "z"]
    assert [line.get("line") for line in answers] == [None, None, 3, 4, 6, 7, 8, None]
    assert answers[0]["best"] == " girl"
    assert [answer["text"] for answer in answers[1]["answers"]] == [" girl", " frog"]
    errors = done.stderr.decode().splitlines()
    assert [error.split(":")[0] for error in errors] == ["line 3", "line 4", "line 6", "line 7", "line 8"]
    assert "no chat template" in errors[-1]
    alone = json.loads(tokenglass("choose", "--json", "-p", PROMPT, " girl", " boy").stdout)
    assert answers[0]["answers"] == alone["answers"]  # what came before it changes nothing


def test_a_chat_template_stands_around_the_prompt_and_the_answer_follows_it(
    saved_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(saved_checkpoint, folder)
    template = "<|endoftext|>{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    (folder / "chat_template.jinja").write_text(template)
    chat = ("choose", "-m", str(folder), "--json", "the fox", "the bear")
    plain = tokenglass(*chat, "-p", "[user] Who?\n[assistant] ", "--keep-newline")
    for done in (
        tokenglass(*chat, "--chat", "-p", "Who?"),
        tokenglass(*chat, "--chat", stdin=b'[{"role": "user", "content": "Who?"}]'),
    ):
        assert done.stderr == b""
        assert json.loads(done.stdout)["answers"] == json.loads(plain.stdout)["answers"]
    request = {"state": "The fox.", "questions": {"a": {"type": "noul", "instructions": "Is it?"}}}
    reply = tokenglass("choose", "-m", str(folder), "--systemone", stdin=json.dumps(request).encode())
    assert 0 <= json.loads(reply.stdout)["answers"]["a"]["noul"] <= 1


def test_typed_decisions_are_json_in_and_out() -> None:
    request = {
        "model": "any",
        "state": "The fox was happy and smiled.",
        "questions": {"mood": {"type": "choice", "criteria": {"happy": "it smiles", "sad": None}}},
    }
    done = tokenglass("choose", "--systemone", stdin=json.dumps(request).encode())
    reply = json.loads(done.stdout)
    assert reply["model"] == "tale"
    assert set(reply["answers"]["mood"]) == {"type", "choice", "probabilities", "confidence"}
    assert_one_line_error(tokenglass("choose", "--systemone", stdin=b'{"state": "x"}'), 2, "1 to 64 questions")
    assert_one_line_error(tokenglass("choose", "--systemone", stdin=b'{"questions": {}}'), 2, "has no state")
    assert_one_line_error(tokenglass("choose", "--systemone", stdin=b"{"), 2, "not valid JSON")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-p x", "at least two answers"),
        ("-p x a a", "stands there twice"),
        ("-p '' a b", "the prompt is empty"),
        ("-p x a b --expect c", "--expect takes one of the answers"),
        ("-p x a b --json --jsonl", "exclude each other"),
        ("-p x a b --jsonl", "leave --prompt out"),
        ("-p x a b --rotate", "stands there 0 times"),
        ("-p x a b --chat", "no chat template"),
        ("-p x a b --system s", "add --chat"),
        ("-p x a b --prompt-file f", "not both"),
        ("--prompt-file none.txt a b", "No such file"),
        ("--jsonl --prompt-file none.txt", "No such file"),
        ("a b --systemone", "takes its answers from the request"),
    ],
)
def test_what_cannot_be_chosen_from_is_one_line(arguments: str, words: str) -> None:
    done = bash(f"printf x | tokenglass choose {arguments}")
    assert_one_line_error(done, 1 if "template" in words else 2, words)


def show(columns: int, *arguments: str, **environment: str) -> Terminal:
    line = shlex.join([str(SCRIPTS / "tokenglass"), "choose", "-p", PROMPT, *arguments])
    terminal = Terminal(program=f"exec {line}", columns=columns, **environment)
    assert terminal.finish() == 0
    return terminal


def test_a_terminal_shows_bars_the_tokens_and_where_the_best_two_part() -> None:
    terminal = show(80, *ANSWERS)
    lines = terminal.lines()
    assert [line.split("  ")[0].strip() for line in lines[:3]] == ["girl", "boy", "boy named Tim"]
    assert "█" in lines[0]
    assert "begin with one of these" in lines[3]
    assert any("·boy" in line and "·named" in line and "·Tim" in line for line in lines)
    assert "the best two differ from the first token on: ·girl" in terminal.text()
    assert {cell.fg for cell in terminal.screen.buffer[0].values()} >= {"green"}


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb", "LC_ALL": "C"}])
def test_it_reads_in_forty_columns_without_colour(environment: dict[str, str]) -> None:
    terminal = show(40, *ANSWERS, " frog who said hello to a very big bear", **environment)
    assert all(len(line) <= 40 for line in terminal.lines())
    assert {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()} == {"default"}
    text = " ".join(terminal.text().split())
    assert "begin with one of these" in text
    if "TERM" in environment:
        assert "\x1b" not in terminal.output
        assert terminal.output.isascii()


def test_nothing_of_an_answer_is_a_code_of_the_terminal_s() -> None:
    terminal = show(80, " \x1b[31mred\u202e", " a\nb")
    assert "\x1b[31mred" not in terminal.output
    assert "\u202e" not in terminal.output
    assert "␛[31mred‹U+202E›" in terminal.text()


def test_nothing_imports_torch() -> None:
    program = (
        "import sys\nsys.modules['torch'] = None\n"
        "sys.argv = ['tokenglass', 'choose', '-p', 'The', ' fox', ' boy named Tim']\n"
        "from tokenglass.cli.__main__ import tokenglass\ntokenglass()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
