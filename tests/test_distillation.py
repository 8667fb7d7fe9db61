"""A teacher learns the simplest stories and says, in another vocabulary, what it expects next."""

from __future__ import annotations

import itertools
import lzma
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.errors import ParameterError
from tokenglass.model.loading import load_model
from tokenglass.weights.recipe.corpus import END_OF_TEXT, SOURCES, TINY, is_held_out
from tokenglass.weights.recipe.distillation import (
    KEPT,
    SoftTargets,
    Teacher,
    first_tokens,
    read_all_targets,
    read_targets,
    targets_path,
    write_targets,
)
from tokenglass.weights.recipe.schedule import Recipe
from tokenglass.weights.recipe.teacher import adapt
from tokenglass.weights.recipe.train import batch, batch_targets, train
from tokenglass.weights.recipe.vocabulary import VOCAB_SIZE, train_tokenizer

STORIES = [
    "Once upon a time there was a little fox who lived in the forest. The fox said hello to the bear.",
    "Lily had a café.\nShe liked the red ball and the “blue” ball, and she was happy.",
    "Tim went to the park. He saw a dog. The dog ran and ran, and Tim ran with the dog.",
]


@pytest.fixture(scope="module")
def tale() -> Path:
    return resolve("tale")


@pytest.fixture(scope="module")
def teacher(tale: Path) -> Teacher:
    """tale, for a student with a small vocabulary of its own."""
    return Teacher(load_model(tale, dtype="float32", backend="native"), tiny.byte_level_tokenizer())


def test_a_teacher_of_the_same_vocabulary_gives_its_own_distributions(tale: Path) -> None:
    loaded = load_model(tale, dtype="float32", backend="native")
    tokenizer = Tokenizer.from_file(str(tale / "tokenizer.json"))
    end = tokenizer.token_to_id(END_OF_TEXT)
    targets = Teacher(loaded, tokenizer).targets(STORIES)
    ids = [end]
    for story in STORIES:
        ids += [*tokenizer.encode(story, add_special_tokens=False).ids, end]
    logits = torch.from_numpy(loaded.engine.forward([ids[:-1]], None, last=None)[0])
    shares, best = logits.softmax(-1).topk(KEPT)
    plain = targets.shares.float().sum(-1) > 0
    assert plain.float().mean() > 0.85  # not inside a character of several tokens
    torch.testing.assert_close(targets.shares.float()[plain], shares[plain], rtol=2e-3, atol=1e-4)
    assert torch.equal(targets.ids[plain, 0].long(), best[plain, 0])


def test_each_token_of_the_teacher_counts_for_the_token_that_the_student_begins_its_text_with(
    teacher: Teacher,
) -> None:
    story = STORIES[0]
    theirs = teacher.own.encode(story, add_special_tokens=False)
    ours = teacher.tokenizer.encode(story, add_special_tokens=False)
    targets = teacher.targets([story])
    read = [teacher.own_end, *theirs.ids]
    logits = torch.from_numpy(teacher.engine.forward([read], None, last=None)[0])
    begins = {start: place for place, (start, _) in enumerate(theirs.offsets)}
    compared = 0
    for row, (token, (start, _)) in enumerate(zip(ours.ids, ours.offsets, strict=True)):
        actual = dict(zip(targets.ids[row].tolist(), targets.shares[row].tolist(), strict=True))
        place = begins.get(start)
        text = "" if place is None else teacher.own.decode([theirs.ids[place]])
        if place is None or teacher.tokenizer.encode(text, add_special_tokens=False).ids[0] != token:
            assert set(actual.values()) == {0.0}
            continue
        expected = dict.fromkeys(range(VOCAB_SIZE), 0.0)
        shares, candidates = logits[place].softmax(-1).sort(descending=True)
        for share, candidate in zip(shares[:64].tolist(), candidates[:64].tolist(), strict=True):
            begun = teacher.tokenizer.encode(teacher.own.decode([candidate]), add_special_tokens=False).ids
            if begun:
                expected[begun[0]] += share
        best = max(expected, key=expected.__getitem__)
        assert actual[best] == pytest.approx(expected[best], rel=2e-3)
        assert sum(actual.values()) == pytest.approx(sum(sorted(expected.values())[-KEPT:]), abs=5e-3)
        compared += 1
    assert compared > len(ours.ids) / 2


def test_the_end_of_a_story_is_the_students_end_token(teacher: Teacher) -> None:
    targets = teacher.targets(STORIES[:1])
    logits = teacher.engine.forward(
        [[teacher.own_end, *teacher.own.encode(STORIES[0], add_special_tokens=False).ids]], None
    )
    expected = torch.from_numpy(logits[0])[-1].softmax(-1)[teacher.own_end].item()
    last = dict(zip(targets.ids[-1].tolist(), targets.shares[-1].tolist(), strict=True))
    assert last[teacher.end] == pytest.approx(expected, rel=2e-3)


def test_a_piece_that_is_no_text_begins_no_token() -> None:
    tokenizer = tiny.byte_level_tokenizer()
    fox = tokenizer.encode(" fox", add_special_tokens=False).ids
    assert first_tokens([b" fox", b"\xc3", b""], tokenizer).tolist() == [fox[0], VOCAB_SIZE, VOCAB_SIZE]


def test_passages_keep_every_story_and_fit_in_the_context(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenglass.weights.recipe.distillation.CONTEXT", 60)
    passages = list(teacher.passages(STORIES * 3))
    assert list(itertools.chain.from_iterable(passages)) == STORIES * 3
    lengths = [sum(len(teacher.own.encode(text).ids) for text in passage) for passage in passages]
    assert all(length <= 60 or len(passage) == 1 for length, passage in zip(lengths, passages, strict=True))
    assert any(len(passage) > 1 for passage in passages)


def test_cross_entropies_are_those_of_the_mixed_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, VOCAB_SIZE, generator=generator)
    own = torch.randint(VOCAB_SIZE, (2, 5), generator=generator)
    ids = torch.rand(2, 5, VOCAB_SIZE, generator=generator).argsort(-1)[..., :KEPT].short()
    shares = torch.rand(2, 5, KEPT, generator=generator).half() / KEPT
    shares[0, 0] = 0  # a place without a soft target
    plain, mixed = SoftTargets(ids, shares).cross_entropies(logits, own, 0.7)
    soft = torch.zeros_like(logits).scatter_add_(-1, ids.long(), 0.7 * shares.float())
    dense = soft.scatter_add(-1, own[..., None], 1 - soft.sum(-1, keepdim=True))
    assert torch.allclose(dense.sum(-1), torch.ones(2, 5))
    flat = logits.flatten(0, 1)
    torch.testing.assert_close(mixed.flatten(), F.cross_entropy(flat, dense.flatten(0, 1), reduction="none"))
    torch.testing.assert_close(plain.flatten(), F.cross_entropy(flat, own.flatten(), reduction="none"))
    assert mixed[0, 0] == plain[0, 0]


def test_writing_that_stops_goes_on_and_ends_with_the_same_targets(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenglass.weights.recipe.distillation.CONTEXT", 60)
    monkeypatch.setattr("tokenglass.weights.recipe.distillation.SAVE_EVERY", 1)
    monkeypatch.setattr("tokenglass.weights.recipe.distillation.CONTEXTS", (8,))
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    assert list(write_targets(whole, teacher, STORIES))[-1] == 3
    done = next(iter(write_targets(parts, teacher, STORIES)))
    assert done < 3
    lengths = [len(teacher.tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in STORIES]
    assert len(read_targets(parts, teacher.tokenizer)) == 1 + sum(lengths[:done])
    assert list(write_targets(parts, teacher, STORIES))[-1] == 3
    assert not list(write_targets(parts, teacher, STORIES))
    expected, actual = read_targets(whole, teacher.tokenizer), read_targets(parts, teacher.tokenizer)
    assert torch.equal(expected.ids, actual.ids)
    assert torch.equal(expected.shares, actual.shares)
    assert len(actual) == 1 + sum(lengths)
    assert not actual.shares[0].any()  # the first token of a stream is no prediction


def test_targets_of_another_vocabulary_and_too_few_for_a_row_are_refused(
    tmp_path: Path, tale: Path, teacher: Teacher
) -> None:
    path = tmp_path / "targets.pt"
    list(write_targets(path, teacher, STORIES))
    with pytest.raises(ParameterError, match=r"targets.pt has the soft targets of \d+ tokens, and a row takes 1,024"):
        read_targets(path, teacher.tokenizer)
    other = train_tokenizer(STORIES)
    with pytest.raises(ParameterError, match="of another vocabulary"):
        read_targets(path, other)
    with pytest.raises(ParameterError, match="of another vocabulary"):
        next(write_targets(path, Teacher(load_model(tale, backend="native"), other), STORIES * 2))


def test_the_targets_of_a_batch_are_those_of_its_next_tokens() -> None:
    streams = {source.name: torch.arange(4000, dtype=torch.int16) for source in SOURCES}
    own = SoftTargets(streams["stories-tiny"][:, None].expand(-1, KEPT), torch.ones(4000, KEPT).half())
    targets = {source.name: own for source in TINY}
    recipe = Recipe(tokens=100 * 4096)
    for step, context in ((0, 256), (3, 512), (8, 1024)):
        rows = batch(streams, recipe, step, context)
        soft = batch_targets(streams, targets, recipe, step, context)
        has = soft.shares.sum(-1) > 0
        assert torch.equal(soft.ids[..., 0].long()[has], rows[:, 1:][has])
    shares = [batch_targets(streams, targets, recipe, step, 256).shares.any(-1).float().mean() for step in (0, 1)]
    assert sum(shares) / 2 == sum(source.rows for source in TINY) / 32


SMALL = replace(tiny.CONFIG, vocab_size=VOCAB_SIZE, max_positions=1024)
RECIPE = Recipe(tokens=30 * 1024, batch_tokens=1024, micro_tokens=512, warmup_steps=2, block_sizes=(4, 32))


def test_a_run_learns_what_its_teacher_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenglass.weights.recipe.train.model_config", lambda: SMALL)
    text = torch.randint(VOCAB_SIZE, (4000,), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    streams = {source.name: text for source in SOURCES}
    always_7 = SoftTargets(torch.full((4000, KEPT), 7).short(), torch.full((4000, KEPT), 1 / KEPT).half())
    targets = {source.name: always_7 for source in SOURCES}
    losses = {}
    for share in (0.0, 0.9):
        folder = tmp_path / f"{share}"
        folder.mkdir()
        run = train(streams, replace(RECIPE, teacher_share=share), folder, targets=targets)
        losses[share] = [record["soft" if share else "loss"] for record in run]
    assert losses[0.0][0] == losses[0.9][0] == pytest.approx(math.log(VOCAB_SIZE))
    assert losses[0.9][-1] < losses[0.0][-1] - 1  # that token 7 comes next is learnt at once, the text is not


def test_a_teacher_learns_in_its_upper_half_alone() -> None:
    model = tiny.random_transformer(replace(tiny.CONFIG, layers=tiny.CONFIG.layers * 2, max_positions=1024))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    stream = torch.arange(600) % 7
    losses = [record["loss"] for record in adapt(model, stream, 8)]
    assert losses[-1] < losses[0]
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    upper = {name for name in before if name.startswith(("model.layers.2.", "model.layers.3.", "model.norm."))}
    assert changed == upper


def test_both_commands_make_a_teacher_and_its_targets(tmp_path: Path, tale: Path) -> None:
    stories = [f"{story} {number} of them." for number in range(20) for story in STORIES]
    corpus, work = tmp_path / "corpus", tmp_path / "work"
    corpus.mkdir()
    work.mkdir()
    for source in TINY:
        text = "".join(f"{story}\n{END_OF_TEXT}\n" for story in stories)
        (corpus / f"{source.name}.txt.xz").write_bytes(lzma.compress(text.encode()))
    tokenizer = train_tokenizer(stories)
    tokenizer.save(str(work / "tokenizer.json"))
    for module, arguments in (
        ("teacher", ("--teacher", tale, "--tokens", "4096")),
        ("distillation", ("--start", work, "--documents", "40")),
        ("distillation", ("--start", work, "--documents", "45", "--source", "stories-tiny-more")),
    ):
        command = [sys.executable, "-m", f"tokenglass.weights.recipe.{module}", corpus, "--work", work, *arguments]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    learned, plain = (load_file(folder / "model.safetensors") for folder in (work / "teacher", tale))
    assert learned.keys() == plain.keys()
    assert any(not torch.equal(learned[name], plain[name].float()) for name in plain)
    read = [story for story in stories if not is_held_out(story)][:40]
    length = sum(len(tokenizer.encode(story, add_special_tokens=False).ids) + 1 for story in read)
    targets = read_targets(targets_path(work, TINY[0]), tokenizer)
    assert len(targets) == length + 1
    assert targets.shares.any(-1).float().mean() > 0.5
    both = read_all_targets(work, tokenizer)
    assert [*both] == ["stories-tiny", "stories-tiny-more"]
    assert len(both["stories-tiny"]) == len(targets) < len(both["stories-tiny-more"])


@pytest.mark.parametrize("share", ["1", "-0.1", "nan", "most"])
def test_a_share_that_is_none_is_refused_in_a_line(share: str, tmp_path: Path) -> None:
    for option in ("--teacher-share", "--dropout"):
        command = ["-m", "tokenglass.weights.recipe", tmp_path, "--work", tmp_path, "--out", tmp_path, option, share]
        run = subprocess.run([sys.executable, *map(str, command)], check=False, capture_output=True, text=True)
        assert run.returncode == 2
        assert run.stderr.splitlines()[-1].endswith(f"{option}: '{share}' is no share; give a number from 0 to below 1")


def test_a_run_with_a_teacher_that_has_read_nothing_says_what_to_run_first(tmp_path: Path, tale: Path) -> None:
    command = ["-m", "tokenglass.weights.recipe", tmp_path, "--work", tmp_path, "--out", tmp_path, "--start", tale]
    command += ["--teacher-share", "0.5"]
    run = subprocess.run([sys.executable, *map(str, command)], check=False, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("run tokenglass.weights.recipe.distillation first")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("teacher", ("--teacher", "nothing-of-this-name"), "nothing-of-this-name"),
        ("teacher", ("--teacher", "tale"), "stories-tiny.txt.xz"),
        ("distillation", ("--start", "."), "teacher"),
    ],
)
def test_a_command_that_lacks_something_says_what_in_a_line(
    tmp_path: Path, module: str, arguments: tuple[str, ...], message: str
) -> None:
    command = [sys.executable, "-m", f"tokenglass.weights.recipe.{module}", str(tmp_path), "--work", str(tmp_path)]
    run = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2
    assert message in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
