"""Which experts each token took, as --experts shows and keeps it; the oracle is transformers' own routers."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import shell
import torch
from families import CASES, EXPERTS, SIZES, save
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, ConsoleDimensions
from rich.text import Text
from terminal import Terminal

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.widgets.experts import ExpertsPanel, SharedExperts
from tokenglass.model.records.steps import LayerExperts
from tokenglass.model.runs.schema import trace_schema

OPTIONS = {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]}
PROMPT, NUMBER = "The fox said hello", 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experts")
    save(root, "qwen2_moe", OPTIONS)
    return root


def lines(folder: Path, *options: str) -> list[dict[str, Any]]:
    done = shell.generate(
        "-m",
        str(folder),
        PROMPT,
        "-n",
        str(NUMBER),
        "--temperature",
        "0",
        "--seed",
        "3",
        "--ignore-eos",
        "--jsonl",
        *options,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


WAYS = {
    "one by one": (),
    "in chunks": ("--prefill-chunk", "2"),
    "without a cache": ("--no-cache",),
    "guided": ("--negative", "The cat", "--guidance", "1.5"),
    "samples": ("--num-samples", "3", "--temperature", "2"),
    "beams": ("--beams", "3"),
    "guided beams": ("--beams", "2", "--negative", "The cat", "--guidance", "1.5"),
    "speculative": ("--mode", "speculative", "--draft-length", "3"),
    "jacobi": ("--mode", "jacobi", "--block-size", "4"),
    "constrained": ("--regex", "[ab]{2}fox[a-z ]{1,4}", "-n", "16"),
    "with forks": ("--forks", "2"),
}


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("way", WAYS)
def test_experts_are_those_of_transformers_routers(folder: Path, way: str, backend: str) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    run, *records = lines(folder, "--experts", "--backend", backend, *WAYS[way])
    for line in (run, *records):
        jsonschema.validate(line, trace_schema())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = {0: list(run["request"]["prompt_ids"])}
    count = 0
    for step in (record for record in records if record["record"] == "step"):
        ids = texts.setdefault(step["sequence"], [])
        if step["parent"] is not None and step["choices"]:  # it went on as well, perhaps before this one
            ids[:] = texts[step["parent"]][: step["choices"][0]["position"]]
        for choice in step["choices"]:
            if choice["status"] in ("rejected", "guessed"):
                assert "experts" not in choice
                continue
            assert choice["position"] == len(ids)
            if choice["logprob"] is None:  # nothing was chosen: a constraint leaves one token
                assert "experts" not in choice
            else:
                check_route(choice["experts"], model, ids)
                count += 1
            ids.append(choice["token_id"])
    assert count >= 4


def check_route(experts: list[dict[str, Any]], model: Any, ids: list[int]) -> None:
    """That these are what the last of the ids takes, by transformers' routers."""
    with torch.inference_mode():
        routers = model(torch.tensor([ids]), output_router_logits=True).router_logits
    assert [layer["layer"] for layer in experts] == [0, 2]
    for layer, router in zip(experts, routers, strict=True):
        probs, taken = router[-1].softmax(-1).topk(2)
        assert layer["experts"] == taken.tolist()
        assert layer["probs"] == pytest.approx(probs.tolist(), rel=1e-4)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_router_that_chooses_by_a_bias_too_says_the_probabilities_without_it(backend: str, tmp_path: Path) -> None:
    routers: list[Any] = []
    reference = save(tmp_path, *CASES["lfm2_moe"])
    for layer in reference.model.layers[1:]:
        layer.feed_forward.gate.register_forward_hook(lambda _, given, out: routers.append(out))
    run, *records = lines(tmp_path, "--experts", "--backend", backend)
    ids, is_greatest = list(run["request"]["prompt_ids"]), []
    for choice in (choice for record in records for choice in record.get("choices", ())):
        routers.clear()
        with torch.inference_mode():
            reference(torch.tensor([ids]))
        for layer, (logits, _, experts) in zip(choice["experts"], routers, strict=True):
            probs, taken = logits[-1].sigmoid(), experts[-1].tolist()
            assert layer["experts"] == taken
            assert layer["probs"] == pytest.approx(probs[taken].tolist(), rel=1e-4)
            is_greatest.append(probs.argmax().item() == taken[0])
        ids.append(choice["token_id"])
    assert not all(is_greatest)  # the bias changes what is chosen
    assert len(is_greatest) == 3 * NUMBER


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_router_that_scales_each_expert_says_the_probabilities_before_that(backend: str, tmp_path: Path) -> None:
    routers: list[Any] = []
    reference = save(tmp_path, *CASES["gemma4_text, experts"])
    for layer in reference.model.layers:
        layer.router.register_forward_hook(lambda _, given, out: routers.append(out))
    run, *records = lines(tmp_path, "--experts", "--backend", backend)
    ids, count = list(run["request"]["prompt_ids"]), 0
    for choice in (choice for record in records for choice in record.get("choices", ())):
        routers.clear()
        with torch.inference_mode():
            reference(torch.tensor([ids]))
        for layer, (probs, _, experts) in zip(choice["experts"], routers, strict=True):
            taken = experts[-1].tolist()
            assert layer["experts"] == taken
            assert layer["probs"] == pytest.approx(probs[-1, taken].tolist(), rel=1e-4)
            count += 1
        ids.append(choice["token_id"])
    assert count == 5 * NUMBER


def test_places_of_a_block_know_their_experts_when_they_are_revealed(folder: Path, tmp_path: Path) -> None:
    filling = tmp_path / "filling"
    shutil.copytree(folder, filling)
    config = json.loads((filling / "config.json").read_text())
    (filling / "config.json").write_text(json.dumps({**config, "mask_token_id": 5}))
    parallel = ("--experts", "--mode", "parallel", "--passes", "2", "--block-size", "3")
    taken = []
    for backend in ("native", "torch"):
        _, *steps, _ = lines(filling, *parallel, "--backend", backend)
        choices = [choice for step in steps for choice in step["choices"]]
        assert {choice["status"] for choice in choices} == {"revealed", "masked"}
        assert all(("experts" in choice) == (choice["status"] == "revealed") for choice in choices)
        taken.append([[layer["experts"] for layer in choice.get("experts", ())] for choice in choices])
    assert taken[0] == taken[1]


def test_a_chat_keeps_them_too(folder: Path, tmp_path: Path) -> None:
    talking = tmp_path / "talking"
    shutil.copytree(folder, talking)
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    (talking / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    arguments = ("chat", "-m", str(talking), "-n", "3", "--ignore-eos", "--experts", "--jsonl", "--seed", "2")
    done = shell.tokenglass(*arguments, stdin=b"The fox\n")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.decode().splitlines()]  # no line is empty
    choices = [choice for record in records for choice in record.get("choices", ())]
    assert len(choices) == 3
    assert all([layer["layer"] for layer in choice["experts"]] == [0, 2] for choice in choices)


def test_watching_changes_no_token_and_without_it_nothing_is_kept(folder: Path) -> None:
    watched, plain = lines(folder, "--experts"), lines(folder)
    assert [s["choices"][0].pop("experts") is not None for s in watched[1:-1] if s["choices"]] == [True] * NUMBER
    for line in (*watched, *plain):
        line.pop("seconds", None)
        line.pop("totals", None)
    assert watched == plain


def test_a_trace_keeps_them_for_the_page(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    done = shell.generate("-m", str(folder), PROMPT, "-n", "3", "--experts", "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    html = shell.tokenglass("export", str(trace), "--html").stdout.decode()
    data = json.loads(html.split('type="application/json">')[1].split("</script>")[0])
    tokens = data["texts"][0]["tokens"]
    assert [[layer for layer, _, _ in token["experts"]] for token in tokens] == [[0, 2]] * len(tokens)


def test_what_cannot_be_watched_is_refused_by_name(folder: Path) -> None:
    shell.assert_one_line_error(shell.generate(PROMPT, "--experts"), 2, "tale has no mixture of experts")
    shell.assert_one_line_error(
        shell.tokenglass("chat", "-m", "tale", "--experts"), 2, "tale has no mixture of experts"
    )
    done = shell.generate("-m", "http://localhost:1", PROMPT, "--experts")
    shell.assert_one_line_error(done, 2, "--experts is not for a server")


def frame(widget: ExpertsPanel, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(widget)
    return capture.get()


def layers_of(*taken: tuple[int, ...]) -> list[LayerExperts]:
    return [LayerExperts(2 * layer, experts, (0.5, 0.25)) for layer, experts in enumerate(taken)]


def test_the_panel_says_which_came_first_and_how_many_are_those_of_the_token_before() -> None:
    text = frame(ExpertsPanel(layers_of((3, 1), (0, 5)), layers_of((1, 2), (0, 5))), width=100)
    assert "2 in each of 2 layers" in text
    assert "50.0 % on average" in text
    assert "75.0 % as for the token before" in text
    assert "0: 3 50.0 %" in text
    assert "2: 0 50.0 %" in text
    assert "before" not in frame(ExpertsPanel(layers_of((3, 1))), width=100)


WORDS = "layer: first expert, probability"


@pytest.mark.parametrize("environ", [{"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=["colour", "none"])
@pytest.mark.parametrize(("width", "heading"), [(40, "layer: expert"), (80, WORDS), (120, WORDS)])
def test_words_say_that_a_number_is_a_layer_and_its_expert(width: int, heading: str, environ: dict[str, str]) -> None:
    console = make_console(io.StringIO(), color="always" if "NO_COLOR" not in environ else "auto", environ=environ)
    console.size = ConsoleDimensions(width, 24)
    with console.capture() as capture:
        console.print(ExpertsPanel(layers_of((3, 1), (0, 5))))
    words = Text.from_ansi(capture.get()).plain.splitlines()[-1].split()
    assert " ".join(words) == f"{heading} 0: 3 50.0 % 2: 0 50.0 %"


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.just(math.nan)
LAYERS = st.lists(
    st.builds(
        LayerExperts,
        st.integers(-(2**63), 2**63),
        st.lists(st.integers(-(2**63), 2**63), max_size=4).map(tuple),
        st.lists(NUMBERS, max_size=4).map(tuple),
    ),
    max_size=8,
)


@given(LAYERS, LAYERS, st.integers(20, 120))
def test_the_panel_fits_whatever_a_trace_holds(
    experts: list[LayerExperts], before: list[LayerExperts], width: int
) -> None:
    for line in frame(ExpertsPanel(experts, before), width=width).splitlines():
        assert len(line) <= width


def test_several_texts_say_how_many_experts_they_took_together() -> None:
    text = frame(SharedExperts([layers_of((3, 1), (0, 5)), layers_of((1, 2), (0, 5))]), width=100)
    assert "2.5 in each of 2 layers for all texts together" in text
    assert "60.0 % of them for more than one" in text
    assert frame(SharedExperts([]), width=100).strip() == ""


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("options", ["", "--panel slim", "--num-samples 2", "--beams 2"])
def test_every_live_view_has_a_line_of_experts(folder: Path, options: str, columns: int) -> None:
    run = f"{shell.SCRIPTS}/generate -m {folder} '{PROMPT}' -n 4 --ignore-eos --experts --speed max {options}"
    terminal = Terminal(program=run, columns=columns)
    assert terminal.finish() == 0, terminal.text()
    ends = "in each of 2" if columns > 40 else " in each of "
    assert any(line.strip().startswith("experts") and ends in line for line in terminal.lines()), terminal.text()
    assert all(len(line) <= columns for line in terminal.lines())
