"""Of models that see, the text part runs as in transformers; their other parts are named and left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny
import torch
from closeness import assert_close
from families import random_ids
from shell import assert_one_line_error, generate, tokenglass
from test_lora import adapter, hook, low_rank
from torch_parts import as_tensor
from wrapper_configs import CASES

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.wrapped import groups_of
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import CheckpointError, ConfigError
from tokenglass.model.loading import load_model


def save(name: str, folder: Path, **options: Any) -> Any:
    """Write a random model of transformers' own class, vision or hearing and all."""
    import transformers  # noqa: PLC0415  (takes seconds)

    torch.manual_seed(0)
    options = json.loads(json.dumps({**CASES[name], **options}))
    config = transformers.AutoConfig.for_model(name, **options)
    spread = options.get("text_config", {}).get("initializer_range", 0.3)
    family = type(config).__name__.removesuffix("Config")
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif parameter.std() < 0.6 * spread:  # the wrapper's own initializer_range
                parameter.mul_(spread / parameter.std())
    model.save_pretrained(folder)
    return model


def assert_same_logits(reference: Any, folder: Path) -> None:
    ids = random_ids(60)
    with torch.inference_mode():
        expected = reference(input_ids=ids).logits
    assert expected.std() > 0.5
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    for backend in ("native", "torch"):
        engine = load_model(folder, device="cpu", dtype="float32", backend=backend).engine
        assert_close(as_tensor(engine.forward(ids, None, last=None)), expected)


@pytest.mark.parametrize("name", CASES)
def test_the_text_part_gives_the_logits_of_the_whole(name: str, tmp_path: Path) -> None:
    assert_same_logits(save(name, tmp_path), tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_of_the_whole_changes_the_text_part_as_in_transformers(name: str, tmp_path: Path) -> None:
    reference = save(name, tmp_path / "base")
    modules = dict(reference.named_modules())
    query = next(each for each in modules if each.endswith("layers.1.self_attn.q_proj"))
    parts = ("language_model", "text_model", "lm_head")
    linear = (each for each, module in modules.items() if isinstance(module, torch.nn.Linear))
    seen = next(each for each in linear if not any(part in each for part in parts))
    query_size, seen_size = modules[query].weight.shape, modules[seen].weight.shape
    of_text = low_rank(query, *query_size)
    one = adapter(tmp_path / "fox", {**of_text, **low_rank(seen, *seen_size)})
    hook(reference, of_text, 10 / 4)
    tiny.byte_level_tokenizer().save(str(tmp_path / "base" / "tokenizer.json"))
    ids = random_ids(40)
    with torch.inference_mode():
        expected = reference(input_ids=ids).logits
    for backend in ("torch", "native"):
        engine = load_model(tmp_path / "base", dtype="float32", device="cpu", backend=backend, adapters=(one,)).engine
        assert_close(as_tensor(engine.forward(ids.tolist(), None, last=None)), expected)
    other = adapter(tmp_path / "hen", low_rank(seen, *seen_size))
    with pytest.raises(CheckpointError, match="changes nothing of this"):
        Checkpoint.open(tmp_path / "base").with_adapters((other,)).changes  # noqa: B018


def rename(folder: Path, names: dict[str, str]) -> None:
    """The tensors under the names of another release."""
    file = folder / "model.safetensors"
    tensors = {}
    for name, tensor in safetensors.torch.load_file(file).items():
        prefix = next((old for old in names if name.startswith(old)), "")
        tensors[names.get(prefix, "") + name.removeprefix(prefix)] = tensor
    safetensors.torch.save_file(tensors, file)


NESTED = {"model.language_model.": "language_model.model.", "language_model.model.": "model.language_model."}
NEWER = {"model.": "model.language_model.", "visual.": "model.visual."}


@pytest.mark.parametrize(("name", "names"), [("gemma3", NESTED), ("llava", NESTED), ("qwen2_5_vl", NEWER)])
def test_tensors_have_the_names_of_any_release(name: str, names: dict[str, str], tmp_path: Path) -> None:
    reference = save(name, tmp_path)
    rename(tmp_path, names)
    assert_same_logits(reference, tmp_path)


def test_a_flat_config_as_the_first_releases_had_it(tmp_path: Path) -> None:
    reference = save("qwen2_5_vl", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    text = config.pop("text_config")
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    flat = {**text, **config, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert_same_logits(reference, tmp_path)


@pytest.mark.parametrize("outside", [True, False])
def test_a_tied_head_may_be_told_outside_or_inside(outside: bool, tmp_path: Path) -> None:
    text = {**CASES["qwen2_5_vl"]["text_config"], "tie_word_embeddings": not outside}
    reference = save("qwen2_5_vl", tmp_path, text_config=text, tie_word_embeddings=outside)
    assert Checkpoint.open(tmp_path).config.tie_word_embeddings
    assert_same_logits(reference, tmp_path)


def test_inspect_lists_the_other_parts(tmp_path: Path) -> None:
    save("gemma3", tmp_path)
    facts = json.loads(tokenglass("inspect", str(tmp_path), "--json").stdout)
    assert (facts["model_type"], facts["text_part_of"]) == ("gemma3_text", "gemma3")
    assert facts["other_parts"].keys() == {"multi_modal_projector", "vision_tower"}
    checkpoint = Checkpoint.open(tmp_path)
    assert facts["parameters"] == sum(info.size for info in checkpoint.tensors)
    assert sum(count for count, _ in groups_of(checkpoint.other_tensors).values()) == len(checkpoint.other_tensors)
    words = " ".join(tokenglass("inspect", str(tmp_path)).stdout.decode().split())
    assert "gemma3_text, the text part of gemma3" in words
    assert "vision_tower (32 tensors" in words


def test_a_prompt_with_an_image_is_refused_by_name(tmp_path: Path) -> None:
    save("qwen2_5_vl", tmp_path, image_token_id=5)
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    piece = tokenizer.decode([5])
    assert_one_line_error(
        generate("-m", str(tmp_path), piece, "-n", "1"), 2, "an image or a sound; only the text part of qwen2_5_vl"
    )
    assert generate("-m", str(tmp_path), "The fox", "-n", "1").returncode == 0


def test_two_tensors_for_one_weight_are_refused(tmp_path: Path) -> None:
    save("qwen2_5_vl", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    again = {"model.language_model.norm.weight": tensors["model.norm.weight"].clone()}
    safetensors.torch.save_file({**tensors, **again}, file)
    with pytest.raises(CheckpointError, match="two tensors for one weight"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model_type": "gemma3", "text_config": 3}, "text_config is 3; expected an object"),
        ({"model_type": "llava", "text_config": {"model_type": "mllama_text_model"}}, "'mllama_text_model' is not"),
        ({"model_type": "mllama", "text_config": {"model_type": "llama"}}, "'mllama' is not supported"),
    ],
)
def test_what_is_no_known_text_is_refused_by_name(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf(raw)


@pytest.mark.parametrize(
    ("family", "pieces"),
    [
        ("gemma3n_text", ("several residual streams", "residuals of low rank", "sparse activations")),
    ],
)
def test_a_family_that_is_not_built_is_refused_by_what_it_has(family: str, pieces: tuple[str, ...]) -> None:
    from transformers import AutoConfig  # noqa: PLC0415  (takes seconds)

    raw = json.loads(AutoConfig.for_model(family).to_json_string(use_diff=False))
    with pytest.raises(ConfigError) as refused:
        ModelConfig.from_hf(raw)
    assert all(piece in str(refused.value) for piece in pieces)
