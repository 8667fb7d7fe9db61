"""Two models, or two kept runs, on the same tokens: every number is that of transformers and torch."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import shell
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import choice

from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.difference import (
    Difference,
    Summary,
    compare_models,
    compare_settings,
    compare_texts,
    divergence_at_least,
    rescore,
    worst,
)
from tokenglass.model.records.steps import Candidate, Choice
from tokenglass.model.sampling.parameters import SamplingParameters

TEXT = "Once upon a time there was a fox, and the fox met another fox."


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two random models of one tokenizer."""
    paths = []
    for layers in (2, 3):
        folder = tiny.save_llama(tmp_path_factory.mktemp(f"model{layers}"), num_hidden_layers=layers)
        tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
        paths.append(folder)
    return paths[0], paths[1]


@pytest.fixture(scope="module")
def models(folders: tuple[Path, Path]) -> tuple[LoadedModel, LoadedModel]:
    one, other = (load_model(folder, dtype="float32", device="cpu") for folder in folders)
    return one, other


@pytest.fixture(scope="module")
def logprobs(folders: tuple[Path, Path], models: tuple[LoadedModel, LoadedModel]) -> list[torch.Tensor]:
    """Of all tokens at every position but the last, from transformers alone."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    ids = torch.tensor([models[0].tokenizer.encode(TEXT)])
    with torch.inference_mode():
        references = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders]
        return [reference(ids).logits[0, :-1].double().log_softmax(-1) for reference in references]


def differences(models: tuple[LoadedModel, LoadedModel], top: int = 5) -> list[Difference]:
    one, other = models
    token_ids = one.tokenizer.encode(TEXT)
    return list(compare_models(one.engine, other.engine, one.tokenizer, token_ids, top=top))


def test_every_number_of_two_models_is_that_of_transformers(
    models: tuple[LoadedModel, LoadedModel], logprobs: list[torch.Tensor]
) -> None:
    comparisons = differences(models)
    ids = torch.tensor(models[0].tokenizer.encode(TEXT))
    one, other = logprobs
    divergences = (torch.nn.functional.kl_div(other, one, reduction="none", log_target=True).sum(-1)) / math.log(2)
    assert [each.divergence for each in comparisons] == pytest.approx(divergences.tolist(), rel=1e-4, abs=1e-5)
    assert all(each.is_exact for each in comparisons)
    assert [each.is_flip for each in comparisons] == (one.argmax(-1) != other.argmax(-1)).tolist()
    for table, choices in ((one, [each.first for each in comparisons]), (other, [each.second for each in comparisons])):
        given_ = table.gather(1, ids[1:, None])
        assert [choice.logprob for choice in choices] == pytest.approx(given_[:, 0].tolist(), rel=1e-4, abs=1e-4)
        assert [choice.rank for choice in choices] == ((table > given_).sum(-1) + 1).tolist()
    sums = Summary.of(comparisons)
    assert sums.divergence == pytest.approx(float(divergences.mean()), rel=1e-4)
    assert sums.first_bits == pytest.approx(float(-one.gather(1, ids[1:, None]).mean()) / math.log(2), rel=1e-4)
    assert worst(comparisons, 1)[0].position == int(divergences.argmax()) + 1
    assert sums.flips == sum(each.is_flip for each in comparisons) > 0


def test_a_model_does_not_differ_from_itself(models: tuple[LoadedModel, LoadedModel]) -> None:
    sums = Summary.of(differences((models[0], models[0])))
    assert (sums.divergence, sums.flips, sums.rank_changes, sums.parting) == (0, 0, 0, None)


def test_candidates_alone_give_a_bound_that_all_of_them_reach(models: tuple[LoadedModel, LoadedModel]) -> None:
    exact = differences(models)
    for top in (1, 5, 40, models[0].vocab_size):
        for whole, some in zip(exact, differences(models, top), strict=True):
            bound = divergence_at_least(some.first, some.second)
            assert whole.divergence is not None
            if bound is not None:
                assert bound <= whole.divergence + 1e-6
            if top == models[0].vocab_size:
                assert bound == pytest.approx(whole.divergence, rel=1e-4, abs=1e-5)


def test_rescored_tokens_have_the_numbers_of_the_model(models: tuple[LoadedModel, LoadedModel]) -> None:
    comparisons = differences(models, 40)
    token_ids = models[0].tokenizer.encode(TEXT)
    recorded = [each.first for each in comparisons][4:]
    again = list(rescore(models[1].engine, models[1].tokenizer, token_ids[:5], recorded))
    assert [each.first for each in again] == recorded
    for old, new in zip(comparisons[4:], again, strict=True):
        assert (new.position, new.second.rank) == (old.position, old.second.rank)
        assert new.second.logprob == pytest.approx(old.second.logprob, abs=1e-5)
        assert new.divergence is None or new.divergence <= (old.divergence or 0) + 1e-6
        assert not new.is_exact


def test_two_texts_are_compared_up_to_where_they_part() -> None:
    first = [dataclasses.replace(choice(b" a", place), token_id=place) for place in range(6)]
    second = [*first[:3], *(dataclasses.replace(each, token_id=99) for each in first[3:])]
    comparisons = list(compare_texts(first, second))
    assert [each.parts for each in comparisons] == [False, False, False, True]
    assert Summary.of(comparisons).parting == first[3].position
    assert list(compare_texts(first, first[:2]))[-1].position == first[1].position


def test_tokens_without_ids_of_their_own_are_compared_by_what_they_say() -> None:
    here = some_choice([0.5, 0.25])
    there = dataclasses.replace(
        here, candidates=tuple(dataclasses.replace(each, token_id=-2 - each.token_id) for each in here.candidates)
    )
    (same,) = compare_texts([here], [there])
    assert (same.is_flip, same.parts, same.divergence) == (False, False, 0.0)
    other = dataclasses.replace(there, candidates=(dataclasses.replace(there.candidates[0], piece=b"other"),))
    (flip,) = compare_texts([here], [other])
    assert (flip.is_flip, flip.parts) == (True, False)


def some_choice(weights: list[float]) -> Choice:
    total = sum(weights)
    candidates = [
        Candidate(place, str(place).encode(), math.log(weight / total), None) for place, weight in enumerate(weights)
    ]
    return dataclasses.replace(choice(b" a"), candidates=tuple(candidates))


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)), min_size=2, max_size=9),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_fewer_candidates_never_say_more(pairs: list[tuple[float, float]], one: int, other: int) -> None:
    first, second = some_choice([p for p, _ in pairs]), some_choice([q for _, q in pairs])
    whole = divergence_at_least(first, second)
    some = divergence_at_least(
        dataclasses.replace(first, candidates=first.candidates[:one]),
        dataclasses.replace(second, candidates=second.candidates[:other]),
    )
    assert whole is not None
    assert some is not None
    assert -1e-9 <= some <= whole + 1e-9


def test_diff_and_rescore_at_the_shell(tmp_path: Path) -> None:
    one, other, text = tmp_path / "one", tmp_path / "other", tmp_path / "text"
    arguments = ("The fox", "-n", "20", "--seed", "5", "--threads", "1")
    shell.generate(*arguments, "--trace", str(one))
    shell.generate(*arguments, "-t", "0.5", "--trace", str(other))
    text.write_text("Once upon a time there was a fox.")
    facts = json.loads(shell.tokenglass("diff", str(one), str(other), "--json").stdout)
    assert facts["tokens"][-1]["position"] == facts["summary"]["parting"]
    told = shell.tokenglass("diff", str(one), str(other)).stdout.decode()
    assert f"from {facts['summary']['parting']:,} on the first has" in told
    facts = json.loads(shell.tokenglass("diff", str(text), "--against-quantize", "int4", "--json").stdout)
    assert facts["summary"]["is_exact"]
    assert 0 < facts["summary"]["divergence"] < 1
    same = json.loads(shell.tokenglass("replay", str(one), "--rescore", "tale", "--jsonl").stdout)
    assert same["summary"]["divergence"] == pytest.approx(0, abs=1e-6)
    assert [each["rank_change"] for each in same["tokens"]] == [0] * 20
    table = shell.tokenglass("replay", str(one), "--rescore", "tale", "--quantize", "int4").stdout.decode()
    assert "tale int4" in table
    assert "at\tbits\tmoved\ttoken" in table
    for files, words in (([str(text)], "--against-quantize"), ([str(one)] * 3, "two traces")):
        shell.assert_one_line_error(shell.tokenglass("diff", *files), 2, words)
    shell.assert_one_line_error(shell.tokenglass("diff", str(one), str(text)), 1, "not a JSON line")


def softmax(logits: torch.Tensor, settings: dict[str, float]) -> torch.Tensor:
    """The final distribution as transformers' own warpers leave it."""
    from transformers.generation import logits_process  # noqa: PLC0415  (takes seconds)

    warpers = {
        "temperature": logits_process.TemperatureLogitsWarper,
        "top_k": logits_process.TopKLogitsWarper,
        "top_p": logits_process.TopPLogitsWarper,
        "min_p": logits_process.MinPLogitsWarper,
    }
    scores = logits.float()
    for name, value in settings.items():
        scores = warpers[name](value)(torch.empty(len(scores), 0, dtype=torch.long), scores)
    return scores.double().softmax(-1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"temperature": 1.3}),
        ({"temperature": 0.8}, {"temperature": 0.8, "top_p": 0.9}),
        ({"temperature": 0.9, "top_k": 5}, {"temperature": 0.9, "top_k": 3}),
        ({"temperature": 1.5, "min_p": 0.02}, {"temperature": 0.5, "min_p": 0.02}),
    ],
)
def test_two_settings_differ_as_the_final_distributions_of_transformers_do(
    models: tuple[LoadedModel, LoadedModel],
    logprobs: list[torch.Tensor],
    first: dict[str, float],
    second: dict[str, float],
) -> None:
    model, off = models[0], {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    both = SamplingParameters(**{**off, **first}), SamplingParameters(**{**off, **second})
    token_ids = model.tokenizer.encode(TEXT)
    comparisons = list(compare_settings(model.engine, model.tokenizer, token_ids, both))
    one, other = (softmax(logprobs[0], settings) for settings in (first, second))
    given_ = torch.tensor(token_ids[1:])[:, None]
    for probs, choices in ((one, [each.first for each in comparisons]), (other, [each.second for each in comparisons])):
        assert [each.prob for each in choices] == pytest.approx(probs.gather(1, given_)[:, 0].tolist(), abs=1e-5)
    assert [each.moved for each in comparisons] == pytest.approx(((one - other).abs().sum(-1) / 2).tolist(), abs=1e-4)
    bits = (one * (one / other).log2()).nan_to_num(0.0, posinf=math.inf).sum(-1).tolist()
    for each, expected in zip(comparisons, bits, strict=True):
        if math.isinf(expected):
            assert each.divergence is None
        else:
            assert each.divergence == pytest.approx(expected, abs=1e-4)


def test_the_command_compares_settings_and_refuses_what_it_would_not_compare(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT)
    done = shell.tokenglass("diff", str(text), "-m", str(folders[0]), "--against-top-k", "4", "--json")
    facts = json.loads(done.stdout)
    assert (facts["first"], facts["second"]) == ("temperature 1", "temperature 1, top_k 4")
    assert all(0 < each["moved"] < 1 and each["divergence"] is None for each in facts["tokens"])
    lines = shell.tokenglass("diff", str(text), "-m", str(folders[0]), "--against-temperature", "1.2").stdout.decode()
    assert "of the probability on other tokens" in lines
    for arguments in (["--temperature", "0.7"], ["--against-temperature", "2", "--against-quantize", "int8"]):
        done = shell.tokenglass("diff", str(text), "-m", str(folders[0]), *arguments)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1
