"""A cache in a file: the same text as without it, and one clear line for anything that is not such a file."""

from __future__ import annotations

import json
import random
import stat
from dataclasses import replace
from pathlib import Path

import native_parts
import pytest
import tiny
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from shell import assert_one_line_error, generate
from test_sliding_window import FULL, SLACK, SLIDING

from tokenglass.model.checkpoint.headers import read_header
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.modes import MODES, ModeSettings, decode_job
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import NO_TOKEN, KVCache, common_prefix
from tokenglass.model.engine.cache_file import load_row, save_row
from tokenglass.model.errors import CacheFileError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.storage import TensorCache
from tokenglass.model.torch_engine.transformer import Transformer

PROMPT = "Once upon a time there was a fox who lived in the woods"
SHORT = ("-n", "12", "--seed", "3")
IDENTITY = {"model": "a" * 64, "dtype": "float32"}
VOCAB = tiny.VOCAB_SIZE
MODELS: dict[str, Transformer] = {
    "full": tiny.random_transformer(),
    "mixed": tiny.random_transformer(replace(tiny.CONFIG, layers=(SLIDING, FULL, SLIDING))),
    "sliding": tiny.random_transformer(replace(tiny.CONFIG, layers=(SLIDING, SLIDING))),
}


def new_cache(name: str, dtype: torch.dtype = torch.float32, planned: int = 64) -> TensorCache:
    config = MODELS[name].config
    return TensorCache(config, limit=200, dtype=dtype, device=torch.device("cpu"), planned_length=planned)


def ids_of(count: int, seed: int = 1) -> list[int]:
    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=30)
@given(name=st.sampled_from([*MODELS]), count=st.integers(1, 60), shared=st.integers(0, 60), more=st.integers(1, 8))
def test_what_goes_on_from_a_file_has_the_logits_of_the_whole_text(
    name: str, count: int, shared: int, more: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, model, cache = tmp_path_factory.mktemp("cache") / "cache", MODELS[name], new_cache(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenglass.model.engine.keys_values.SLACK", SLACK)
        saved = ids_of(count)
        model(torch.tensor([saved]), cache)
        assert save_row(path, cache, IDENTITY) == count
        assert cache.lengths == [0]
        again = new_cache(name)
        assert load_row(path, again, IDENTITY, VOCAB)
        text = [*saved[: min(shared, count)], *ids_of(more, seed=2)]
        length = again.keep_prefix(0, text[:-1])
        assert length <= len(text) - 1
        close = model(torch.tensor([text[length:]]), again)[0]
        assert_close(close, model(torch.tensor([text]))[0, length:])


def test_the_file_is_safetensors_with_the_cache_s_own_numbers_for_its_owner_alone(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        cache = new_cache("full", dtype)
        cache.reserve([7])
        row = cache.rows[0]
        for state in row.states:
            state.array.copy_(torch.randn(state.array.shape))
        cache.advance([ids_of(7)], [0])
        expected = [state.array[:, :, :7].clone() for state in row.states]
        save_row(tmp_path / "cache", cache, IDENTITY)
        (array,) = load_file(tmp_path / "cache").values()
        assert torch.equal(array, expected[0])
        assert array.dtype == dtype
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o600


def test_positions_that_saw_more_than_the_text_before_them_are_not_used_again(tmp_path: Path) -> None:
    cache, ids = new_cache("full"), ids_of(8)
    MODELS["full"](torch.tensor([ids]), cache)
    cache.rows[0].token_ids[5:] = [NO_TOKEN] * 3
    save_row(tmp_path / "cache", cache, IDENTITY)
    again = new_cache("full")
    load_row(tmp_path / "cache", again, IDENTITY, VOCAB)
    assert again.keep_prefix(0, ids) == 5


@pytest.fixture(scope="module", params=[("native", "auto"), ("native", "int8"), ("torch", "auto")], ids="-".join)
def tale(request: pytest.FixtureRequest) -> LoadedModel:
    backend, cache_dtype = request.param
    if backend == "native":
        native_parts.compiled()
    return load_model(bundled_folder(), backend=backend, cache_dtype=cache_dtype, threads=1)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_from_a_file_writes_the_text_that_it_writes_alone(tale: LoadedModel, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "cache"

    def text(prompt: str, cache: KVCache | None) -> str:
        request = Request(tale.tokenizer.encode(prompt), 3, max_new_tokens=12)
        records = decode_job(Job.of(tale, request, cache=cache), ModeSettings(mode).with_rule())
        return "".join(record.text for record in records)

    def cache() -> KVCache:
        return tale.engine.new_cache(planned_length=40)

    cache_before = cache()
    saying = text(PROMPT, cache_before)
    save_row(path, cache_before, tale.cache_identity)
    held = json.loads(read_header(path).metadata["token_ids"])
    for prompt in (PROMPT, f"{PROMPT}{saying} And then", "Once upon a hill"):
        loaded = cache()
        assert load_row(path, loaded, tale.cache_identity, tale.vocab_size)
        ids = tale.tokenizer.encode(prompt)
        assert loaded.keep_prefix(0, ids[:-1]) == common_prefix(held, ids[:-1]) >= 4
        assert text(prompt, loaded) == text(prompt, None)


def test_the_steps_tell_what_was_computed(tmp_path: Path) -> None:
    path = str(tmp_path / "cache")
    generate(PROMPT, *SHORT, "--save-cache", path)
    done = generate(PROMPT, *SHORT, "--load-cache", path, "--jsonl")
    assert done.stderr.decode() == "(13 of 14 prompt positions reused)\n"
    step = json.loads(done.stdout.splitlines()[1])
    assert (step["num_input_tokens"], step["cache"]["length"]) == (1, 14)


def test_a_cache_may_be_saved_to_the_file_it_came_from_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    assert generate(PROMPT, *SHORT, "--save-cache", str(path)).returncode == 0
    before = len(json.loads(read_header(path).metadata["token_ids"]))
    assert_one_line_error(generate(PROMPT, "--save-cache", str(path)), 2, "never overwritten")
    longer = (f"{PROMPT} and all of them", "-n", "30", "--ignore-eos")
    assert generate(*longer, "--load-cache", str(path), "--save-cache", str(path)).returncode == 0
    assert len(json.loads(read_header(path).metadata["token_ids"])) > before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dtype", "bfloat16"), ("another dtype", "bfloat16")),
        (("--cache-dtype", "int8"), ("another cache_dtype", "float32", "int8")),
        (("--quantize", "int8"), ("another quantize",)),
        (("--backend", "torch"), ("another backend",)),
        (("--no-cache",), ("leave out --no-cache",)),
        (("--beams", "2"), ("--beams",)),
    ],
)
def test_another_model_or_way_is_refused(options: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    native_parts.compiled()
    path = str(tmp_path / "cache")
    generate("The fox", "-n", "3", "--save-cache", path)
    code = 1 if "another" in words[0] else 2
    assert_one_line_error(generate("The fox", "-n", "3", "--load-cache", path, *options), code, *words)


def test_any_damage_is_one_line(tmp_path: Path) -> None:
    cache = new_cache("mixed")
    MODELS["mixed"](torch.tensor([ids_of(30)]), cache)
    save_row(tmp_path / "cache", cache, IDENTITY)
    sound, damaged = (tmp_path / "cache").read_bytes(), tmp_path / "damaged"
    chance = random.Random(1)
    for turn in range(400):
        content = bytearray(sound)
        if turn % 4 == 0:
            del content[chance.randrange(len(content)) :]
        elif turn % 4 == 1:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif turn % 4 == 2:  # in the header
            content[chance.randrange(8, 900)] = chance.randrange(32, 127)
        else:
            content += b"x"
        if content == sound:
            continue
        damaged.write_bytes(content)
        target = new_cache("mixed")
        message = refusal(damaged, target)
        if message is not None:
            assert "\n" not in message
            assert target.lengths == [0]
        else:  # what is left is a text of its own: spaces in the header, or another planned length or id
            assert sound[8:].split(b"}}")[-1] == bytes(content)[8:].split(b"}}")[-1]


def refusal(path: Path, cache: TensorCache) -> str | None:
    """Why a file is not loaded; None where it is."""
    try:
        load_row(path, cache, IDENTITY, VOCAB)
    except CacheFileError as error:
        return str(error)
    return None


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"hello", b"\xff" * 100], ids=["empty", "zeros", "text", "ones"])
def test_a_foreign_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert_one_line_error(generate("The fox", "--load-cache", str(tmp_path / "file")), 1, str(tmp_path / "file"))
    assert_one_line_error(generate("The fox", "--load-cache", str(tmp_path / "none")), 1, "no such file")
    assert_one_line_error(generate("The fox", "--load-cache", str(tmp_path)), 1, "not a regular file")
