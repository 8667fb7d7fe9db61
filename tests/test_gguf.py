"""A GGUF file becomes a checkpoint that says the same, and a damaged one becomes one clear line."""

from __future__ import annotations

import json
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
import torch
import transformers
from closeness import assert_close
from gguf_metadata import byte_level_metadata, sentencepiece_metadata
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from shell import assert_one_line_error, generate, tokenglass
from tiny_gguf import TYPES, interleave, random_blocks, write_gguf
from torch_parts import as_tensor

from tokenglass.model.errors import GGUFError, TokenglassError
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.importers.gguf_config import llama3_divisor, short
from tokenglass.model.importers.gguf_file import GGUFFile, GGUFTensor
from tokenglass.model.importers.gguf_tokenizer import tokenizer_of
from tokenglass.model.importers.gguf_weights import read_values
from tokenglass.model.importers.gguf_words import WORDS
from tokenglass.model.loading import load_model
from tokenglass.model.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that transformers wrote."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "tie_word_embeddings": False, "vocab_size": 432}
    return tiny.save_llama(tmp_path_factory.mktemp("original"), **sizes)


@pytest.fixture(scope="module")
def small(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("small") / "small.gguf", original)


def import_to(path: Path, folder: Path, **options: Any) -> Path:
    for _ in import_gguf(path, folder, **options):
        pass
    return folder


def test_every_tensor_and_the_config_come_back(original: Path, small: Path, tmp_path: Path) -> None:
    folder = import_to(small, tmp_path / "out")
    expected, actual = load_file(original / "model.safetensors"), load_file(folder / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
    fields = json.loads((folder / "config.json").read_text())
    assert (fields["num_attention_heads"], fields["num_key_value_heads"], fields["rms_norm_eps"]) == (4, 2, 1e-6)
    assert (fields["rope_theta"], fields["tie_word_embeddings"]) == (5000.0, False)


@pytest.mark.parametrize("kind", [TYPES.Q8_0, TYPES.Q4_0, TYPES.Q4_1, TYPES.Q5_0, TYPES.Q5_1, TYPES.F16, TYPES.BF16])
def test_quantised_weights_are_what_the_library_reads(kind: Any, original: Path, tmp_path: Path) -> None:
    folder = import_to(write_gguf(tmp_path / "a.gguf", original, quantised=kind), tmp_path / "out")
    name = "model.layers.1.self_attn.q_proj.weight"
    stored = interleave(load_file(original / "model.safetensors")[name], 4).numpy()
    expected = torch.from_numpy(gguf.dequantize(gguf.quantize(stored, kind), kind).copy())
    tensor = load_file(folder / "model.safetensors")[name]
    assert torch.equal(interleave(tensor, 4).float(), expected)
    dtypes = {TYPES.F16: torch.float16, TYPES.BF16: torch.bfloat16}
    assert tensor.dtype == dtypes.get(kind, torch.float32), "float16 and bfloat16 stay, the rest becomes float32"


@pytest.mark.parametrize("kind", [TYPES.Q2_K, TYPES.Q4_K, TYPES.Q6_K, TYPES.IQ4_XS, TYPES.IQ2_XXS, TYPES.MXFP4])
def test_types_of_large_blocks_are_read_in_pieces(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = random_blocks(kind, rows=7, length=512)
    path = tmp_path / "blocks"
    path.write_bytes(blocks.tobytes())
    tensor = GGUFTensor(path, "some.weight", int(kind), (7, 512), 0)
    monkeypatch.setattr("tokenglass.model.importers.gguf_weights.CHUNK", 1024)
    chunks = list(read_values(tensor))
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 1]
    with np.errstate(all="ignore"):
        expected = torch.from_numpy(gguf.dequantize(blocks, kind))
    assert torch.equal(torch.from_numpy(np.concatenate(chunks)).nan_to_num(), expected.nan_to_num())


def test_a_dtype_can_be_asked_for(small: Path, tmp_path: Path) -> None:
    folder = import_to(small, tmp_path / "out", dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_tied_head_is_known_by_its_absence(tmp_path: Path) -> None:
    tied = tiny.save_llama(tmp_path / "tied", tie_word_embeddings=True, vocab_size=432)
    folder = import_to(write_gguf(tmp_path / "tied.gguf", tied), tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("family", "options"), [("Llama", {}), ("Llama", {"attention_bias": True}), ("Qwen2", {}), ("Qwen3", {})]
)
def test_logits_equal_those_of_the_model_that_was_converted(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Biases of queries and keys are in the order of their weights, which Llama's files interleave."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=432,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        initializer_range=0.3,
        **options,
    )
    written = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, weight in written.named_parameters():
        if name.endswith(("bias", "norm.weight")):  # else all alike
            torch.nn.init.normal_(weight, 1.0, 0.3)
    written.save_pretrained(tmp_path / "written")
    more = {"qwen3__attention__key_length": 16, "qwen3__attention__value_length": 16} if family == "Qwen3" else {}
    path = write_gguf(tmp_path / "a.gguf", tmp_path / "written", **more)
    ids = torch.arange(40)[None] * 7 % 432
    logits = as_tensor(load_model(import_to(path, tmp_path / "out")).engine.forward(ids, None, last=None))
    with torch.inference_mode():
        assert_close(logits, written(ids).logits)


# The tokenizer


@pytest.mark.parametrize("pre", sorted(WORDS))
def test_byte_level_text_comes_back_for_every_pre_tokenizer(pre: str) -> None:
    tokenizer = Tokenizer(tokenizer_of(byte_level_metadata(pre))[0])
    for text in (*tiny.TEXTS, "a  b\n\n c\t 12345 don't 👍🏽", "\x00\x7f\u2028"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["I", "'ll", " pay", " 12345", "!!", " ", " ok"]),
        ("smollm", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " ok"]),
        ("llama-bpe", ["I", "'ll", " pay", " ", "123", "45", "!!", " ", " ok"]),
        ("qwen2", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " ok"]),
        ("default", ["I", "'", "ll", " pay", " ", "123", "45", "!!", " ", " ok"]),
    ],
)
def test_words_are_cut_as_the_kind_says(pre: str, expected: list[str]) -> None:
    tokenizer = tokenizer_of(byte_level_metadata(pre))[0]
    text = "I'll pay 12345!!  ok"
    cut = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[slice(*span)] for _, span in cut] == expected


def test_a_byte_without_a_token_keeps_its_neighbours_apart() -> None:
    metadata = byte_level_metadata()
    tokens = list(metadata["tokenizer.ggml.tokens"])
    tokens[tokens.index("Ā")] = "never"  # the byte 0
    merged = next(m.split(" ") for m in metadata["tokenizer.ggml.merges"] if m.isascii())
    tokenizer = tokenizer_of({**metadata, "tokenizer.ggml.tokens": tuple(tokens)})[0]
    apart = tokenizer.encode("\x00".join(merged), add_special_tokens=False).tokens
    assert apart == merged
    assert tokenizer.encode("".join(merged), add_special_tokens=False).tokens == ["".join(merged)]


def test_sentencepiece_merges_follow_the_scores() -> None:
    metadata, original = sentencepiece_metadata(), tiny.byte_fallback_tokenizer()
    tokenizer = Tokenizer(tokenizer_of(metadata)[0])
    assert tokenizer.start_ids == (1,)
    for text in (*tiny.TEXTS, "  two  spaces ", "new\nline", "😀"):
        assert tokenizer.encode(text) == tuple(original.encode(text).ids), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_start_token_is_put_first_where_the_file_says_so() -> None:
    for adds_start, expected in ((True, (0,)), (False, ())):
        metadata = byte_level_metadata(bos_token_id=0, add_bos_token=adds_start)
        assert Tokenizer(tokenizer_of(metadata)[0]).start_ids == expected


def test_end_tokens_and_the_template_are_kept(original: Path, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf",
        original,
        tokenizer__ggml__eos_token_id=1,
        tokenizer__chat_template="{{ messages[0].content }}",
    )
    folder = import_to(path, tmp_path / "out")
    assert load_model(folder).eos_token_ids == {0, 1}, "the one that is named, and <|endoftext|> by its name"
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages[0].content }}"


# What is refused, and what a stranger may send


def test_llama3_scaling_is_known_by_its_divisors(original: Path, tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    divisors = [llama3_divisor(5000.0 ** (-2 * k / 16), scaling) for k in range(8)]
    path = with_factors(tmp_path / "a.gguf", original, divisors)
    config = json.loads((import_to(path, tmp_path / "out") / "config.json").read_text())
    assert config["rope_scaling"] == {"rope_type": "llama3", **scaling}


def test_other_rope_divisors_are_refused_not_dropped(original: Path, tmp_path: Path) -> None:
    path = with_factors(tmp_path / "a.gguf", original, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert_refused(path, tmp_path, "rope_freqs.weight")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"llama__rope__scaling__type": "spiral"}, "spiral"),
        ({"llama__expert_count": 8}, "expert_used_count"),
        ({"llama__expert_count": 8, "llama__expert_used_count": 2}, "tensors that the model does not have"),
        ({"llama__expert_count": 2**16, "llama__expert_used_count": 2}, "experts"),
        ({"llama__expert_count": 2**31, "llama__expert_used_count": 2**31}, "experts"),
        ({"llama__attention__scale": 0.5}, "llama.attention.scale"),
        ({"llama__rope__dimension_count": 8}, "rope.dimension_count"),
        ({"llama__block_count": 3}, "missing"),
        ({"llama__block_count": 2**31}, "layers"),
        ({"llama__attention__head_count": 0}, "head"),
        ({"llama__attention__head_count": 2**31}, "head"),
        ({"llama__embedding_length": None}, "embedding_length"),
        ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, "eps"),
        ({"tokenizer__ggml__model": "bert"}, "bert"),
        ({"tokenizer__ggml__pre": "unheard-of"}, "unheard-of"),
        ({"tokenizer__ggml__tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokenizer__ggml__merges": ["nospace"]}, "nospace"),
        ({"tokenizer__ggml__merges": ["no token"]}, "tokenizer"),
        ({"tokenizer__ggml__eos_token_id": 100000}, "eos_token_id"),
        ({"tokenizer__ggml__token_type": [1]}, "types"),
    ],
)
def test_what_cannot_be_imported_is_named(change: dict[str, Any], words: str, original: Path, tmp_path: Path) -> None:
    assert_refused(write_gguf(tmp_path / "a.gguf", original, **change), tmp_path, words)


def test_a_file_cut_short_anywhere_leaves_nothing(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    for length in (0, 3, 4, 10, 24, 40, 1000, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:length])
        assert_refused(path, tmp_path, "cut.gguf")


def header(*parts: bytes, tensors: int = 0, keys: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + b"".join(parts)


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


@pytest.mark.parametrize(
    "content",
    [
        header(keys=2**63),
        header(*[text(b"%d" % number) + struct.pack("<IB", 0, 0) for number in range(5000)], keys=5000),
        header(tensors=2**63, keys=0),
        header(struct.pack("<Q", 2**63)),
        header(text(b"a"), struct.pack("<IIQ", 9, 0, 2**62)),
        header(text(b"a"), struct.pack("<IIQ", 9, 8, 2**62)),
        header(text(b"a"), struct.pack("<IIQ", 9, 9, 2**62)),
        header(text(b"a"), struct.pack("<IIQ", 9, 99, 1)),
        header(text(b"a"), struct.pack("<I", 99)),
        header(text(b"\xff"), struct.pack("<IB", 0, 0)),
        header(text(b"t"), struct.pack("<I", 2**31), tensors=1, keys=0),
        header(text(b"t"), struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0), tensors=1, keys=0),
        header(*[text(b"a"), struct.pack("<IB", 0, 0)] * 2, keys=2),
        header(text(b"general.alignment"), struct.pack("<II", 4, 0)),
    ],
)
def test_absurd_numbers_are_refused_at_once(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "absurd.gguf"
    path.write_bytes(content + bytes(64))
    tracemalloc.start()
    with pytest.raises(GGUFError):
        GGUFFile.open(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, 16000), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_end_in_a_header_or_an_error_of_ours(
    small: Path, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(small.read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(content)
    with suppress(TokenglassError):
        tokenizer_of(GGUFFile.open(path).metadata)


# In the shell


def test_import_and_generate(small: Path, tmp_path: Path) -> None:
    done = tokenglass("import", str(small), str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (0, b"")
    by_folder = generate("-m", str(tmp_path / "out"), "The fox", "-n", "5", "--temperature", "0")
    first = generate("-m", str(small), "The fox", "-n", "5", "--temperature", "0", TOKENGLASS_HOME=str(tmp_path))
    second = generate("-m", str(small), "The fox", "-n", "5", "--temperature", "0", TOKENGLASS_HOME=str(tmp_path))
    assert by_folder.returncode == first.returncode == second.returncode == 0, first.stderr
    assert by_folder.stdout == first.stdout == second.stdout != b""
    assert b"imported" in first.stderr
    assert b"imported" not in second.stderr


def test_an_existing_folder_is_not_touched(small: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    assert_one_line_error(tokenglass("import", str(small), str(tmp_path)), 1, "already there")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_float32_is_written_as_the_decimal_it_was_meant_to_be() -> None:
    assert short(struct.unpack("f", struct.pack("f", 1e-5))[0]) == 1e-5
    assert short(0.1) == 0.1


def assert_refused(path: Path, folder: Path, words: str) -> None:
    """One line with these words, and nothing but the file itself in the folder."""
    before = sorted(folder.iterdir())
    with pytest.raises(TokenglassError) as error:
        import_to(path, folder / "out")
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def with_factors(path: Path, original: Path, divisors: list[float]) -> Path:
    """The small file with a table of rope divisors, written as one more tensor."""
    return write_gguf(path, original, others={"rope_freqs.weight": np.array(divisors, np.float32)})
