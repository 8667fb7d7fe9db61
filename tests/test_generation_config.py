"""What a checkpoint says of how to generate: applied as transformers does, or reported by name."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shell
import tiny
import torch
from torch_parts import as_tensor

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.passes import PassOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.request import build_request
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ConfigError, ParameterError, PromptError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.generation_config import APPLIED, NOT_APPLIED, WITHOUT_EFFECT, GenerationConfig
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.rescaling import Temperature
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.sampling.truncation import TopK
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

PROMPT = "The little fox"
GREEDY = SamplingOptions({"temperature": 0.0})
FILE = "generation_config.json"


@pytest.fixture
def folder(saved_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved_checkpoint, tmp_path / "model")
    return tmp_path / "model"


def write(folder: Path, content: dict[str, Any] | None) -> None:
    """Make this the generation_config.json; None takes it away."""
    (folder / FILE).unlink()
    if content is not None:
        (folder / FILE).write_text(json.dumps(content))


def generate(folder: Path, **options: Any) -> Any:
    """What transformers makes of the prompt, with the scores that it drew from."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415  (takes seconds)

    prompt = torch.tensor([Tokenizer.from_folder(folder).encode(PROMPT)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lengths that cannot be
        return AutoModelForCausalLM.from_pretrained(folder).generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            pad_token_id=0,
            tokenizer=PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
            output_scores=True,
            return_dict_in_generate=True,
            **options,
        )


def their_tokens(folder: Path, **options: Any) -> list[int]:
    """The new tokens of transformers' generate, greedy."""
    output = generate(folder, do_sample=False, **options)
    return output.sequences[0, len(Tokenizer.from_folder(folder).encode(PROMPT)) :].tolist()


def ask(loaded: LoadedModel, sampling: SamplingOptions = GREEDY, chat: bool = False, **control: Any) -> Request:
    """What the command line asks for with these options."""
    prompt_ids = loaded.tokenizer.encode(PROMPT)
    return build_request(loaded, prompt_ids, ControlOptions(**control), sampling, PassOptions(), 5, chat=chat)


def our_tokens(folder: Path, **control: Any) -> tuple[list[int], Finish]:
    loaded = load_model(folder)
    *steps, finish = decode(Job(loaded.engine, loaded.tokenizer, ask(loaded, **control)))
    assert isinstance(finish, Finish)
    return tiny.new_tokens(steps), finish


@pytest.fixture(scope="module")
def first_ids(saved_checkpoint: Path) -> list[int]:
    """The first tokens that the model writes where nothing ends it."""
    loaded = load_model(saved_checkpoint)
    request = Request(loaded.tokenizer.encode(PROMPT), 1, SamplingParameters(temperature=0), max_new_tokens=16)
    return tiny.new_tokens(list(decode(Job(loaded.engine, loaded.tokenizer, request))))


@pytest.fixture(scope="module")
def greedy(first_ids: list[int]) -> list[int]:
    """The same, each once."""
    return list(dict.fromkeys(first_ids))


# Of the tokens that come, which ones generation_config.json and config.json name
END_TOKENS: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "both, and they differ": ({"eos_token_id": 5}, {"eos_token_id": 2}),
    "a list": ({"eos_token_id": [6, 4]}, {"eos_token_id": 2}),
    "a file that names none": ({"do_sample": False}, {"eos_token_id": 2}),
    "a file that says null": ({"eos_token_id": None}, {"eos_token_id": 2}),
    "an empty list": ({"eos_token_id": []}, {"eos_token_id": 2}),
    "no file": (None, {"eos_token_id": 3}),
    "no file, and config.json has a list": (None, {"eos_token_id": [4, 3]}),
    "no file, and config.json names none": (None, {}),
}


@pytest.mark.parametrize("case", END_TOKENS)
def test_a_text_ends_where_transformers_ends_it(case: str, folder: Path, greedy: list[int]) -> None:
    generation, config = END_TOKENS[case]

    def named(content: dict[str, Any]) -> dict[str, Any]:
        """With the tokens in the place of their numbers."""
        key = content.get("eos_token_id")
        if key is None:
            return content
        return {**content, "eos_token_id": [greedy[place] for place in key] if isinstance(key, list) else greedy[key]}

    write(folder, None if generation is None else named(generation))
    tiny.edit_json(folder / "config.json", **{"eos_token_id": None, **named(config)})

    ours, finish = our_tokens(folder, max_new_tokens=12)
    assert ours == their_tokens(folder, max_new_tokens=12)
    assert finish.reason == ("length" if len(ours) == 12 else "eos")


def test_the_tokenizers_own_end_token_ends_a_text_only_where_no_file_names_one(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    write(folder, {"eos_token_id": [8, 9]})
    assert load_model(folder).eos_token_ids == {8, 9}
    write(folder, {"bos_token_id": 0})
    assert load_model(folder).eos_token_ids == {0}


def test_in_a_chat_the_tokenizers_own_end_token_ends_a_turn_as_well(folder: Path) -> None:
    """Fine-tunes whose file still names the base model's end token would otherwise write the user's next turn too."""
    end = {"content": "<|im_end|>", "special": True}
    settings = {"eos_token": "<|im_end|>", "added_tokens_decoder": {"500": end}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write(folder, {"eos_token_id": [8, 9]})
    loaded = load_model(folder)
    (mark,) = loaded.tokenizer.special_ids(("<|im_end|>",))
    assert ask(loaded).eos_token_ids == {8, 9}
    assert ask(loaded, chat=True).eos_token_ids == {8, 9, mark}


def test_an_end_token_that_only_the_tokenizers_config_lists_ends_a_text(folder: Path) -> None:
    end = {"content": "<|im_end|>", "special": True}
    settings = {"eos_token": "<|im_end|>", "added_tokens_decoder": {"500": end}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write(folder, {"bos_token_id": 0})
    loaded = load_model(folder)
    (mark,) = loaded.eos_token_ids
    assert loaded.tokenizer.piece(mark) == b"<|im_end|>"


def test_end_tokens_that_the_model_cannot_write_end_nothing(folder: Path) -> None:
    write(folder, {"eos_token_id": [-1, 7, tiny.VOCAB_SIZE, 2**40]})
    assert load_model(folder).eos_token_ids == {7}


@pytest.mark.parametrize("wrong", ["2", 2.5, True, [1, None], [[1]], {"id": 1}])
def test_end_tokens_that_are_none_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^generation_config\.json: eos_token_id is .*expected a token id"):
        assert GenerationConfig({"eos_token_id": wrong}).eos_token_ids


LENGTHS: list[dict[str, Any]] = [
    {"max_new_tokens": 5},
    {"max_length": 12},
    {"max_length": 9, "max_new_tokens": 6},
    {"max_length": 12, "min_new_tokens": 4},
    {"max_new_tokens": 12, "min_length": 10},
    {"max_new_tokens": 12, "min_length": 3},
    {"max_new_tokens": 12, "min_length": 11, "min_new_tokens": 3},
    {"max_new_tokens": 4, "min_new_tokens": 9},
    {"max_new_tokens": 12, "max_length": None, "min_length": None},
]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_texts_are_as_long_as_in_transformers(lengths: dict[str, Any], folder: Path, greedy: list[int]) -> None:
    """The third token ends the text, where it may."""
    write(folder, {"eos_token_id": greedy[2], **lengths})
    ours, _ = our_tokens(folder)
    assert ours == their_tokens(folder)


def test_options_go_before_the_file(folder: Path, greedy: list[int]) -> None:
    write(folder, {"max_new_tokens": 5, "min_new_tokens": 4, "max_time": 9, "stop_strings": "the", "top_k": 3})
    loaded = load_model(folder)
    own = ask(loaded, SamplingOptions())
    assert (own.max_new_tokens, own.min_new_tokens, own.max_seconds, own.stops) == (5, 4, 9, ("the",))
    assert own.sampling.get(TopK).k == 3
    other = ask(
        loaded, SamplingOptions({"top_k": 0}), max_new_tokens=7, min_new_tokens=0, max_time=2.0, stop=["a", "b"]
    )
    assert (other.max_new_tokens, other.min_new_tokens, other.max_seconds, other.stops) == (7, 0, 2, ("a", "b"))
    assert other.sampling.get(TopK).k == 0


def test_what_an_option_replaces_is_not_looked_at(folder: Path) -> None:
    write(folder, {"do_sample": True, "temperature": "hot", "top_k": -1, "max_new_tokens": "many", "max_time": []})
    request = ask(load_model(folder), SamplingOptions({"temperature": 0.5, "top_k": 7}), max_new_tokens=3, max_time=1.0)
    assert (request.sampling.get(Temperature), request.sampling.get(TopK)) == (Temperature(0.5), TopK(7))
    assert request.max_new_tokens == 3


def test_a_prompt_that_max_length_leaves_no_room_is_refused_with_the_numbers(folder: Path) -> None:
    """As in transformers, which raises a ValueError."""
    length = len(Tokenizer.from_folder(folder).encode(PROMPT))
    write(folder, {"max_length": length})
    with pytest.raises(PromptError, match=rf"the prompt is {length} tokens, .*max_length.*give --max-new-tokens"):
        ask(load_model(folder))
    with pytest.raises(ValueError, match="max_length"):
        their_tokens(folder)
    assert ask(load_model(folder), max_new_tokens=4).max_new_tokens == 4


def test_stop_strings_end_the_text_where_transformers_does(folder: Path, first_ids: list[int]) -> None:
    """Theirs has the stop itself as well; the tokens are the same."""
    text = Tokenizer.from_folder(folder).decode(first_ids[:8])
    for stops in (text[4:6], [text[5:7], "never said"]):
        write(folder, {"max_new_tokens": 16, "stop_strings": stops})
        ours, finish = our_tokens(folder)
        assert ours == their_tokens(folder)
        assert finish.reason == "stop"
        assert len(ours) < 9


SAMPLING = [
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    {"do_sample": True, "temperature": 0.6, "top_p": None, "top_k": None},
    {"do_sample": True, "top_k": 0, "top_p": 0.7},
    {"do_sample": True, "top_k": 20, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.05},
    {"do_sample": True, "top_k": 64, "min_p": 0.02},
    {"do_sample": True, "typical_p": 0.6, "no_repeat_ngram_size": 1},
    {"do_sample": True, "top_p": 0.0},
    {"do_sample": True, "temperature": 1, "top_p": 1, "min_p": 0, "repetition_penalty": 1},
    {"do_sample": True, "min_p": 1.0, "top_k": 0},
]


@pytest.mark.parametrize("content", SAMPLING, ids=str)
def test_defaults_draw_from_the_distribution_that_transformers_draws_from(
    content: dict[str, Any], folder: Path
) -> None:
    write(folder, content)
    loaded = load_model(folder)
    assert isinstance(loaded.engine, TorchEngine)
    prompt_ids = loaded.tokenizer.encode(PROMPT)
    theirs = generate(folder, max_new_tokens=1).scores[0][0].double().softmax(-1).numpy()
    logits = as_tensor(loaded.engine.forward(torch.tensor([prompt_ids]), None))[0, -1]
    sampler = Sampler(ask(loaded, SamplingOptions()).sampling, loaded.tokenizer.piece)
    ours = sampler.distribution(logits, Context(prompt_ids, len(prompt_ids), 1)).final
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, SamplingParameters(temperature=0.8, top_p=0.95)),
        ({"bos_token_id": 1}, SamplingParameters(temperature=0.8, top_p=0.95)),
        ({"repetition_penalty": 1.1}, SamplingParameters(repetition_penalty=1.1)),
        ({"temperature": None, "do_sample": None}, SamplingParameters()),
        ({"do_sample": False, "temperature": "hot"}, SamplingParameters(temperature=0.0, top_p=1.0)),
        (
            {"do_sample": False, "no_repeat_ngram_size": 3},
            SamplingParameters(temperature=0.0, top_p=1.0, no_repeat_ngram_size=3),
        ),
        ({"temperature": 0.6}, SamplingParameters(temperature=0.6, top_k=50, top_p=1.0)),
        ({"typical_p": 0.9}, SamplingParameters(temperature=1.0, top_k=50, top_p=1.0, typical_p=0.9)),
        ({"top_k": 20, "min_p": None}, SamplingParameters(temperature=1.0, top_k=20, top_p=1.0)),
    ],
)
def test_what_a_file_leaves_out_is_as_the_readme_says(content: dict[str, Any], expected: SamplingParameters) -> None:
    assert GenerationConfig(content).sampling() == expected


def test_a_temperature_that_is_chosen_draws_as_the_rest_of_a_greedy_file_says() -> None:
    greedy = GenerationConfig({"do_sample": False, "top_p": 0.7})
    assert greedy.sampling(temperature=0.9) == SamplingParameters(temperature=0.9, top_k=50, top_p=0.7)


@pytest.mark.parametrize(
    "content",
    [
        {"temperature": "hot"},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 10**400},
        {"top_k": 2.5},
        {"top_k": -1},
        {"top_p": True},
        {"top_p": 7},
        {"min_p": []},
        {"repetition_penalty": 0},
        {"no_repeat_ngram_size": "3"},
        {"do_sample": "yes"},
        {"do_sample": 1},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_by_name(content: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=rf"^generation_config.json: {next(iter(content))} is"):
        GenerationConfig(content).sampling()


@pytest.mark.parametrize(
    "content",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": True},
        {"max_length": "long"},
        {"max_length": 2**60},
        {"min_length": -3},
        {"min_new_tokens": 1.5},
        {"max_time": 0},
        {"max_time": float("nan")},
        {"max_time": "1 s"},
        {"stop_strings": ""},
        {"stop_strings": ["a", 3]},
        {"stop_strings": {"a": 1}},
        {"stop_strings": [["x" * 10**6]]},
    ],
    ids=lambda content: str(content)[:40],
)
def test_limits_that_make_no_sense_are_refused_by_name(content: dict[str, Any]) -> None:
    config = GenerationConfig(content)
    with pytest.raises(ParameterError, match=rf"^generation_config.json: {next(iter(content))} is") as refusal:
        print(config.max_new_tokens(1, 9), config.min_new_tokens(1), config.max_seconds, config.stop_strings)
    assert len(str(refusal.value)) < 300


def test_every_key_of_transformers_is_applied_or_reported_or_without_effect() -> None:
    import transformers  # noqa: PLC0415

    theirs = {key for key in vars(transformers.GenerationConfig()) if key != "continuous_batching_config"}
    tables: list[set[str]] = [set(APPLIED), set(NOT_APPLIED), set(WITHOUT_EFFECT)]
    assert sum(map(len, tables)) == len(set().union(*tables)), "a key is in two tables"
    assert theirs <= set().union(*tables)


def test_the_defaults_of_transformers_are_reported_by_nobody() -> None:
    import transformers  # noqa: PLC0415

    defaults = transformers.GenerationConfig._get_default_generation_params()
    assert GenerationConfig(defaults).notes == ()
    assert GenerationConfig(dict.fromkeys(NOT_APPLIED)).notes == ()


@pytest.mark.parametrize("key", NOT_APPLIED)
def test_a_key_that_is_not_applied_is_reported_by_name(key: str) -> None:
    (note,) = GenerationConfig({key: {"what": "ever"}}).notes
    assert note.startswith(f"generation_config.json asks for {key} {{'what': 'ever'}}, which is not applied")


def test_keys_that_are_not_known_are_reported_in_one_short_line() -> None:
    (note,) = GenerationConfig({f"{'long ' * 1000}\x1b]0;{n}": n for n in range(1000)}).notes
    assert note.endswith(" and 996 more")
    assert note.isprintable()
    assert len(note) < 600


def test_config_json_is_asked_only_where_there_is_no_file_and_only_for_keys_of_generating(folder: Path) -> None:
    raw = {"model_type": "llama", "num_beams": 4, "repetition_penalty": 1.3}
    assert GenerationConfig.from_folder(folder, raw).notes == ()
    write(folder, None)
    config = GenerationConfig.from_folder(folder, raw)
    assert config.notes == ("config.json asks for num_beams 4, which is not applied; try --beams",)
    assert config.sampling() == SamplingParameters(repetition_penalty=1.3)


def test_the_command_line_reports_what_is_not_applied_and_applies_the_rest(folder: Path) -> None:
    write(folder, {"num_beams": 4, "penalty_alpha": 0.6, "max_new_tokens": 3, "chat_format": "x", "do_sample": False})
    done = shell.generate("-m", str(folder), "--jsonl", "The fox")
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().splitlines() == [
        "note: generation_config.json asks for num_beams 4, which is not applied; try --beams",
        "note: generation_config.json asks for penalty_alpha 0.6, which is not applied",
        "note: generation_config.json holds keys that are not known: 'chat_format'",
    ]
    run, *_, finish = (json.loads(line) for line in done.stdout.splitlines())
    assert (run["request"]["max_new_tokens"], run["request"]["sampling"]["temperature"]) == (3, 0)
    assert finish["reason"] == "length"


@pytest.mark.parametrize(
    ("content", "word"),
    [("[1]", "a JSON object"), ("{", "not valid JSON"), ("[" * 10**6, "nested too deeply"), ("\xff", "JSON")],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(content: str, word: str, folder: Path) -> None:
    (folder / FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"generation_config\.json: .*{word}"):
        GenerationConfig.from_folder(folder, {})


def test_a_file_that_cannot_be_followed_is_one_line(folder: Path) -> None:
    write(folder, {"do_sample": True, "temperature": "hot"})
    done = shell.generate("-m", str(folder), "The fox")
    shell.assert_one_line_error(done, 2, "generation_config.json: temperature is 'hot'")
