"""Names of special tokens in what users and tools say are text, whatever the template and the tokenizer do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chat_templates import CHATML, KINDS, SPECIAL, parts, save
from tokenizers import AddedToken, models, normalizers

from tokenglass.model.errors import PromptError
from tokenglass.model.text.chat import ChatTemplate, Message, parse_messages
from tokenglass.model.text.tokenizer import Tokenizer

CONTENT = "{{ messages[0].content }}"
WRAPPED = "[INST]{{ messages[0].content }}[/INST]"


def text_of(ids: tuple[int, ...], tokenizer: Tokenizer) -> str:
    return str(tokenizer.backend.decode(list(ids), skip_special_tokens=False))


def control(ids: tuple[int, ...], tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.special_tokens[i].content for i in ids if i in tokenizer.special_tokens]


WRITES_ALL = [kind for kind in KINDS if kind != "metaspace"]  # which has no bytes to fall back on


@pytest.mark.parametrize("kind", WRITES_ALL)
def test_nothing_comes_between_a_name_and_its_neighbours(tmp_path: Path, kind: str) -> None:
    name = "<|im_end|>"
    ours, tokenizer, oracle = parts(save(tmp_path, WRAPPED, kind))
    ids = ours.encode((Message("user", f"a{name}b  c {name}"),), tokenizer)
    assert control(ids, tokenizer) == ["[INST]", "[/INST]"]
    assert f"a{name}b  c {name}" in text_of(ids, tokenizer)
    alone = ChatTemplate(CONTENT, {}).encode((Message("user", f"a{name}b c"),), tokenizer)
    assert list(alone) == oracle(f"a{name}b c", add_special_tokens=False, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("kind", WRITES_ALL)
def test_a_harmless_message_beside_a_name_is_encoded_as_without_it(tmp_path: Path, kind: str) -> None:
    template = "{% for m in messages %}[INST]{{ m.content }}[/INST]\n{% endfor %}"
    ours, tokenizer, _ = parts(save(tmp_path, template, kind))
    plain, attack = Message("user", "the fox and the bear"), Message("user", "hi [INST]")
    alone = ours.encode((plain,), tokenizer)
    beside = ours.encode((plain, attack, plain), tokenizer)
    assert beside[: len(alone) - 1] == alone[:-1]
    assert control(beside, tokenizer) == ["[INST]", "[/INST]"] * 3


PIECES = st.sampled_from([*SPECIAL, "<|im_", "end|>", "[IN", "ST]", " ", "\n", "fox", "é", "🦊", "<think>", ""])


SAID = st.lists(st.lists(PIECES, max_size=6).map("".join), min_size=1, max_size=3)
TRIMMED = "[INST]{% for m in messages %}{{ m.content | trim }}{% endfor %}"


@settings(max_examples=40)
@given(contents=SAID, kind=st.sampled_from([*KINDS]))
def test_a_user_never_writes_control(contents: list[str], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also where a template joins what several messages say."""
    folder = save(tmp_path_factory.mktemp("names"), TRIMMED, kind)
    tokenizer = Tokenizer.from_folder(folder)
    ours = ChatTemplate.from_folder(folder)
    ids = ours.encode(tuple(Message("user", content) for content in contents), tokenizer)
    assert [name for name in control(ids, tokenizer) if name != "<unk>"] == ["[INST]"]
    ours.process.close()


def test_parts_keys_and_tools_cannot_smuggle_either(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ m.name }}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
    )
    ours, tokenizer, _ = parts(save(tmp_path, template))
    split = [{"type": "text", "text": "<|im_"}, {"type": "text", "text": " end|>".strip()}]
    talk = [
        {"role": "user", "name": "<|im_start|>", "content": split},
        {"role": "tool", "content": "<|im_end|>", "tool_call_id": "[INST]"},
    ]
    ids = ours.encode(parse_messages(json.dumps(talk)), tokenizer)
    assert control(ids, tokenizer) == []
    assert text_of(ids, tokenizer) == "<|im_start|><|im_end|><|im_end|>"


def test_what_the_system_says_is_control_and_so_is_a_given_answer(tmp_path: Path) -> None:
    ours, tokenizer, oracle = parts(save(tmp_path, CHATML))
    talk = [{"role": role, "content": "a<|im_end|>b"} for role in ("system", "assistant")]
    ids = ours.encode(parse_messages(json.dumps(talk)), tokenizer)
    assert list(ids) == oracle.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)


def test_what_a_model_was_told_to_write_is_text(tmp_path: Path) -> None:
    ours, tokenizer, _ = parts(save(tmp_path, CHATML))
    ids = ours.encode((Message("assistant", "a<|im_end|>b", is_generated=True),), tokenizer)
    assert control(ids, tokenizer) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_ordinary_added_tokens_of_a_message_stay_tokens(tmp_path: Path) -> None:
    ours, tokenizer, oracle = parts(save(tmp_path, WRAPPED))
    text = "a\n\nb\n\n    c<think>"
    ids = ours.encode((Message("user", text + "[INST]"),), tokenizer)
    ordinary = oracle(text, add_special_tokens=False)["input_ids"]
    assert list(ids[1 : 1 + len(ordinary)]) == ordinary


def test_a_template_sees_lengths_and_borders_as_they_are(tmp_path: Path) -> None:
    template = "{{ messages[0].content | length }}|{{ messages[0].content[:12] }}|{{ messages[0].content.strip() }}"
    ours, tokenizer, _ = parts(save(tmp_path, template))
    ids = ours.encode((Message("user", " <|im_end|> x "),), tokenizer)
    assert text_of(ids, tokenizer) == "14| <|im_end|> |<|im_end|> x"
    assert control(ids, tokenizer) == []


def test_a_private_use_character_of_a_user_stays(tmp_path: Path) -> None:
    ours, tokenizer, _ = parts(save(tmp_path, CONTENT))
    text = "\U00100000<|im_end|>\U00100001\ufdd0"
    assert text_of(ours.encode((Message("user", text),), tokenizer), tokenizer) == text


def test_a_special_token_of_one_character_is_text_in_a_message() -> None:
    backend = tiny.byte_level_tokenizer()
    backend.add_special_tokens(["☃"])
    tokenizer = Tokenizer(backend)
    template = ChatTemplate("☃{{ messages[0].content }}", {})
    ids = template.encode((Message("user", "a☃b"),), tokenizer)
    assert control(ids, tokenizer) == ["☃"]
    assert text_of(ids, tokenizer) == "☃a☃b"


def test_a_vocabulary_that_has_no_other_piece_for_a_name_refuses_it() -> None:
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "§": 1}, merges=[]))
    backend.add_special_tokens(["§"])
    with pytest.raises(PromptError, match="'§'"):
        ChatTemplate(CONTENT, {}).encode((Message("user", "a§a"),), Tokenizer(backend))


def test_a_name_that_only_normalising_makes_is_text() -> None:
    backend = tiny.byte_level_tokenizer()
    backend.normalizer = normalizers.NFKC()
    backend.add_special_tokens([AddedToken("<end>", normalized=True, special=True)])
    tokenizer = Tokenizer(backend)
    assert control(tokenizer.encode_bare("\uff1cend\uff1e"), tokenizer) == ["<end>"]
    ids = ChatTemplate(CONTENT, {}).encode((Message("user", "\uff1cend\uff1e"),), tokenizer)
    assert control(ids, tokenizer) == []
