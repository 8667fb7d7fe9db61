"""LoRA adapters, merged as a model is loaded: logits are those of transformers with the formula beside each module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shell
import torch
from closeness import assert_close
from families import CASES, save
from safetensors.torch import save_file
from torch import Tensor, nn

from tokenglass.model.checkpoint.adapter import Adapter
from tokenglass.model.checkpoint.arrays import to_float32
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Quantizer, quantize_int4
from tokenglass.model.checkpoint.weights import plan_reading, read_weights
from tokenglass.model.errors import CheckpointError, ConfigError
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish
from tokenglass.model.torch_engine.storage import as_tensor

SIZES = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
LLAMA = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": None}
GPT2 = {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
QUERY = "model.layers.1.self_attn.q_proj"
Tensors = dict[str, Tensor]


def base(folder: Path, family: str = "llama", options: dict[str, Any] | None = None) -> Any:
    """Write a random model with a tokenizer, as transformers does; that model."""
    return save(folder, family, LLAMA if options is None else options)


def adapter(folder: Path, tensors: Tensors, **config: Any) -> Adapter:
    """Write an adapter as PEFT does, which names its tensors base_model.model.NAME; and open it."""
    folder.mkdir(exist_ok=True)
    whole = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 10,
        "base_model_name_or_path": str(folder.parent / "base"),
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    return Adapter.open(folder)


def low_rank(module: str, out: int, columns: int, rank: int = 4, seed: int = 5) -> Tensors:
    """Random A and B of a module."""
    chance = torch.Generator().manual_seed(seed)
    down, up = (torch.randn(*shape, generator=chance) * 0.3 for shape in ((rank, columns), (out, rank)))
    return {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}


def hook(model: nn.Module, tensors: Tensors, factor: float) -> None:
    """Add factor * B A x to what each of these modules gives."""
    for name, down in tensors.items():
        if name.endswith("lora_A.weight"):
            module, up = name.removesuffix(".lora_A.weight"), tensors[name.replace("lora_A", "lora_B")]

            def add(_: Any, inputs: tuple[Tensor], output: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
                return output + factor * (inputs[0] @ down.T @ up.T)

            model.get_submodule(module).register_forward_hook(add)


def assert_equal(folder: Path, model: nn.Module, *adapters: Adapter, **options: Any) -> None:
    """Both engines give that model's logits."""
    ids = torch.randint(0, 512, (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = model(ids).logits
    for backend in ("torch", "native"):
        loaded = load_model(folder, dtype="float32", device="cpu", backend=backend, adapters=adapters, **options)
        logits = loaded.engine.forward(ids.tolist(), None, last=None)
        assert_close(torch.stack([as_tensor(row) for row in logits]), expected)


FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, int]]]] = {
    "llama": ("llama", LLAMA, {QUERY: (32, 32), "model.layers.0.mlp.down_proj": (32, 48), "lm_head": (512, 32)}),
    "a fused matrix": ("phi3", LLAMA, {"model.layers.0.self_attn.qkv_proj": (64, 32)}),
    "what enters a convolution": (
        "lfm2",
        {**LLAMA, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        {
            "model.layers.0.conv.in_proj": (96, 32),
            "model.layers.0.conv.out_proj": (32, 32),
            "model.layers.1.feed_forward.w2": (32, 48),
        },
    ),
    "a module with another name in files": (
        "lfm3",
        {**LLAMA, "head_dim": 8, "layer_types": ["conv", "full_attention"]},
        {"model.layers.1.self_attn.g_proj": (4, 32), "model.layers.0.conv.in_proj": (96, 32)},
    ),
    "a feed-forward and a router beside experts": (
        "gemma4_text",
        CASES["gemma4_text, experts"][1],
        {"model.layers.0.mlp.up_proj": (48, 32), "model.layers.1.router.proj": (6, 32)},
    ),
    "heads interleaved": (
        "gpt_neox",
        {**LLAMA, "num_key_value_heads": 4},
        {"gpt_neox.layers.1.attention.query_key_value": (96, 32)},
    ),
    "rows in pairs": ("glm4", {**LLAMA, "head_dim": 8}, {QUERY: (32, 32)}),
    "stored transposed": (
        "gpt2",
        GPT2,
        {"transformer.h.0.attn.c_attn": (96, 32), "transformer.h.1.mlp.c_proj": (32, 128)},
    ),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_logits_are_those_of_the_adapter_beside_each_module(case: str, tmp_path: Path) -> None:
    family, options, modules = FAMILIES[case]
    model = base(tmp_path / "base", family, options)
    tensors: Tensors = {}
    for module, (out, columns) in modules.items():
        tensors |= low_rank(module, out, columns)
    one = adapter(tmp_path / "fox", tensors)
    hook(model, tensors, 10 / 4)
    assert_equal(tmp_path / "base", model, one)


def test_several_adapters_add_up_each_by_its_scale(tmp_path: Path) -> None:
    model = base(tmp_path / "base")
    first, second = low_rank(QUERY, 32, 32), low_rank(QUERY, 32, 32, rank=2, seed=6)
    adapter(tmp_path / "fox", first)
    adapter(tmp_path / "hen", second, r=2)
    hook(model, first, 0.5 * 10 / 4)
    hook(model, second, -1.5 * 10 / 2)
    assert_equal(tmp_path / "base", model, Adapter.open(tmp_path / "fox", 0.5), Adapter.open(tmp_path / "hen", -1.5))


def test_ranks_and_alphas_by_name_and_rslora(tmp_path: Path) -> None:
    model = base(tmp_path / "base")
    value = "model.layers.0.self_attn.v_proj"
    first, second = low_rank(QUERY, 32, 32), low_rank(value, 16, 32, rank=2)
    patterns = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"^model.layers.0.self_attn.v_proj": 6, "k_proj": 99}}
    one = adapter(tmp_path / "fox", {**first, **second}, use_rslora=True, **patterns)
    hook(model, first, 10 / 2)
    hook(model, second, 6 / 2**0.5)
    assert_equal(tmp_path / "base", model, one)


def test_biases_and_whole_modules_stand_in_place_of_the_models_own(tmp_path: Path) -> None:
    model = base(tmp_path / "base", options={**LLAMA, "attention_bias": True})
    tensors = {f"{QUERY}.base_layer.bias": torch.randn(32), "model.layers.0.self_attn.k_proj.bias": torch.randn(16)}
    tensors |= {"model.norm.weight": torch.randn(32), "lm_head.weight": torch.randn(512, 32)}
    one = adapter(
        tmp_path / "fox", {**tensors, **low_rank(QUERY, 32, 32)}, bias="all", modules_to_save=["norm", "lm_head"]
    )
    with torch.no_grad():
        for name, tensor in tensors.items():
            model.get_parameter(name.replace(".base_layer", "")).copy_(tensor)
    hook(model, low_rank(QUERY, 32, 32), 10 / 4)
    assert_equal(tmp_path / "base", model, one)


def test_an_adapter_of_a_tied_embedding_leaves_the_head_as_it_is(tmp_path: Path) -> None:
    model = base(tmp_path / "base", options={**LLAMA, "tie_word_embeddings": True})
    down, up = torch.randn(4, 512) * 0.3, torch.randn(32, 4) * 0.3
    table = model.model.embed_tokens.weight.detach()
    tensors = {"lora_embedding_A": down, "lora_embedding_B": up, "base_layer.weight": table}
    one = adapter(tmp_path / "fox", {f"model.embed_tokens.{name}": tensor for name, tensor in tensors.items()})
    changed = table + 10 / 4 * (up @ down).T
    model.model.embed_tokens.register_forward_hook(
        lambda _, inputs, output: nn.functional.embedding(inputs[0], changed)
    )
    assert_equal(tmp_path / "base", model, one)


def test_weights_are_merged_in_float32_and_rounded_once(tmp_path: Path) -> None:
    base(tmp_path / "base").to(torch.bfloat16).save_pretrained(tmp_path / "base")
    one = adapter(tmp_path / "fox", low_rank(QUERY, 32, 32))
    checkpoint = Checkpoint.open(tmp_path / "base").with_adapters((one,))
    name, tensors = f"{QUERY}.weight", low_rank(QUERY, 32, 32)
    down, up = (tensor.numpy() for tensor in tensors.values())
    stored = to_float32(finish(read_weights(Checkpoint.open(tmp_path / "base"), dtype="bfloat16")).weights[name])
    merged = stored + (up * np.float32(10 / 4)) @ down
    rounded = as_tensor(finish(read_weights(checkpoint, dtype="bfloat16")).weights[name])
    assert torch.equal(rounded, torch.from_numpy(merged).to(torch.bfloat16))
    quantised = finish(read_weights(checkpoint, dtype="bfloat16", quantizer=Quantizer("int4"))).weights[name]
    assert np.array_equal(quantised.dequantize(), quantize_int4(merged).dequantize())


BOTH = low_rank(QUERY, 32, 32)
DOWN, UP = BOTH.values()
REFUSED: dict[str, tuple[Tensors, dict[str, Any], str]] = {
    "DoRA": (BOTH, {"use_dora": True}, "DoRA is not supported; merge it"),
    "another method": (BOTH, {"peft_type": "IA3"}, "only LORA"),
    "no method": (BOTH, {"peft_type": None}, "only LORA"),
    "PiSSA": (BOTH, {"init_lora_weights": "pissa_niter_4"}, "changed the base model"),
    "parameters": (BOTH, {"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
    "a pattern that may take for ever": (BOTH, {"alpha_pattern": {"(a*)*b": 3}}, "write the names out"),
    "an alpha of another type": (BOTH, {"lora_alpha": "ten"}, "lora_alpha"),
    "no such module": (low_rank("model.layers.7.self_attn.q_proj", 32, 32), {}, "fits no weight"),
    "no such name": (
        {**BOTH, "score.weight": torch.zeros(2, 32)},
        {},
        "fits no weight of this llama model: base_model",
    ),
    "a magnitude": ({**BOTH, f"{QUERY}.lora_magnitude_vector": torch.zeros(32)}, {}, "fits no weight"),
    "half of a pair": ({f"{QUERY}.lora_A.weight": DOWN}, {}, "not A and B"),
    "another width": (low_rank(QUERY, 32, 48), {}, "do not make"),
    "another height": (low_rank(QUERY, 16, 32), {}, "do not make"),
    "another rank": (low_rank(QUERY, 32, 32, rank=3), {}, "has rank 3, where its config says 4"),
    "ranks that differ": ({f"{QUERY}.lora_A.weight": DOWN, f"{QUERY}.lora_B.weight": UP[:, :3]}, {}, "do not make"),
    "a norm": (low_rank("model.norm", 32, 1), {}, "do not make"),
    "new tokens": ({"lm_head.weight": torch.zeros(520, 32)}, {}, "is [520, 32], the model's own [512, 32]"),
    "integers": ({f"{QUERY}.lora_A.weight": DOWN.int()}, {}, "unsupported dtype"),
    "no number": ({f"{QUERY}.lora_A.weight": DOWN * torch.nan, f"{QUERY}.lora_B.weight": UP}, {}, "not a number"),
    "two spellings": (
        {**BOTH, **{name.removeprefix("model."): tensor.clone() for name, tensor in BOTH.items()}},
        {},
        "there twice",
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, where adapters look for it: beside them."""
    folder = tmp_path_factory.mktemp("lora")
    base(folder / "base")
    adapter(folder / "fox", low_rank(QUERY, 32, 32))
    return folder


def merge(model: Path, folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    checkpoint = Checkpoint.open(model).with_adapters((adapter(folder, tensors, **config),))
    finish(read_weights(checkpoint, dtype="float32"))


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_or_is_not_built_is_refused_by_name(case: str, plain: Path, tmp_path: Path) -> None:
    tensors, config, why = REFUSED[case]
    with pytest.raises((CheckpointError, ConfigError)) as refusal:
        merge(plain / "base", tmp_path / "bad", tensors, config)
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_adapter_cannot_go_into_a_quantised_model(plain: Path, tmp_path: Path) -> None:
    assert shell.tokenglass("quantize", str(plain / "base"), str(tmp_path / "int8"), "--no-measure").returncode == 0
    done = shell.generate("-m", str(tmp_path / "int8"), "--lora", str(plain / "fox"), "The fox")
    shell.assert_one_line_error(done, 1, "stored as int8", "--quantize int8")


def test_pickled_weights_a_scale_of_a_whole_module_and_two_of_one_are_refused(plain: Path, tmp_path: Path) -> None:
    whole = adapter(tmp_path / "whole", {"model.norm.weight": torch.ones(32)})
    checkpoint = Checkpoint.open(plain / "base")
    with pytest.raises(CheckpointError, match="leave the scale out"):
        plan_reading(checkpoint.with_adapters((Adapter.open(tmp_path / "whole", 0.5),)))
    with pytest.raises(CheckpointError, match="as an adapter before it does"):
        plan_reading(checkpoint.with_adapters((whole, whole)))
    (tmp_path / "whole" / "adapter_model.safetensors").rename(tmp_path / "whole" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="can run code"):
        Adapter.open(tmp_path / "whole")


def test_without_a_model_the_adapters_own_is_read_and_the_trace_says_with_what(plain: Path, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    lora = f"{plain / 'fox'}=0.5"
    one = shell.generate("--lora", lora, "The fox", "-n", "6", "--seed", "3", "--trace", str(trace), "--stats")
    assert one.returncode == 0, one.stderr
    assert b"as the adapter says" in one.stderr
    run = json.loads(trace.read_text().splitlines()[0])
    assert run["model"] == "base"
    assert run["engine"]["adapters"] == [lora]
    assert b"fox=0.5" in one.stderr
    other = shell.generate("-m", str(plain / "base"), "--lora", lora, "The fox", "-n", "6", "--seed", "3")
    assert other.stdout == one.stdout


def test_diff_shows_a_model_without_and_with_an_adapter(plain: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The fox said hello to the bear.")
    done = shell.tokenglass("diff", str(text), "--lora", str(plain / "fox"), "--json")
    assert done.returncode == 0, done.stderr
    assert "base + fox" in done.stdout.decode()


def test_quantize_and_inspect_take_adapters(plain: Path, tmp_path: Path) -> None:
    lora = str(plain / "fox")
    done = shell.tokenglass("quantize", str(plain / "base"), str(tmp_path / "int8"), "--lora", lora, "--json")
    assert done.returncode == 0, done.stderr
    adapted = Checkpoint.open(plain / "base").with_adapters((Adapter.open(plain / "fox"),))
    assert json.loads(done.stdout)["source_fingerprint"] == adapted.fingerprint
    assert adapted.fingerprint != Checkpoint.open(plain / "base").fingerprint
    facts = json.loads(shell.tokenglass("inspect", "--lora", lora, "--json").stdout)
    assert facts["adapters"][0] | {"ranks": [4], "scale": 1.0, "parameters": 256} == facts["adapters"][0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("org/no-such-model", "is not here; name its folder with -m"),
        ("", "do not say which model"),
        (None, "do not say"),
    ],
)
def test_a_base_that_is_not_here_is_named_in_one_line(name: str | None, why: str, tmp_path: Path) -> None:
    adapter(tmp_path / "fox", BOTH, base_model_name_or_path=name)
    shell.assert_one_line_error(shell.generate("--lora", str(tmp_path / "fox"), "The fox"), 2, why)


def test_what_is_no_scale_and_no_folder_is_said(tmp_path: Path) -> None:
    shell.assert_one_line_error(shell.generate("--lora", "fox=much", "The fox"), 2, "is no scale")
    for folder, why in ((tmp_path, "has no adapter_config.json"), (tmp_path / "nowhere", "no such folder")):
        done = shell.generate("--lora", str(folder), "The fox")
        shell.assert_one_line_error(done, 1, f"{folder}: {why}; --lora takes an adapter's folder, as PEFT saves it")
    done = shell.generate("-m", "http://localhost:1", "--lora", str(tmp_path), "The fox")
    shell.assert_one_line_error(done, 2, "--lora is not for a server")
