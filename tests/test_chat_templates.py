"""Chat templates: text and ids are those of transformers' apply_chat_template; what users say is never control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizers
from tokenizers import AddedToken, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tokenglass.model.errors import TemplateError, TokenizerError
from tokenglass.model.text.chat import ChatTemplate, parse_messages
from tokenglass.model.text.tokenizer import Tokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>", "[INST]", "[/INST]")


def byte_level() -> tokenizers.Tokenizer:
    return tiny.byte_level_tokenizer()


def first_only() -> tokenizers.Tokenizer:
    """Mistral's newer kind: a space goes before the first text only."""
    tokenizer = tiny.byte_fallback_tokenizer()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def normalising_tokenizer() -> tokenizers.Tokenizer:
    """Llama 2's older kind: special tokens are found in the normalised text."""
    tokenizer = tiny.byte_fallback_tokenizer()
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["normalized"] = True
    return tokenizers.Tokenizer.from_str(json.dumps(content))


KINDS = {
    "byte-level": byte_level,
    "prepended space": tiny.byte_fallback_tokenizer,
    "metaspace": tiny.metaspace_tokenizer,
    "first space only": first_only,
    "normalised special tokens": normalising_tokenizer,
}


def save(folder: Path, template: Any, kind: str = "byte-level", **config: Any) -> Path:
    """A folder with a tokenizer and a chat template, no weights."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in ("\n\n", "    ", "<think>", "</think>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    start = "<|endoftext|>" if kind == "byte-level" else "<s>"
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": "<|im_end|>",
        "chat_template": template,
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def parts(folder: Path) -> tuple[ChatTemplate, Tokenizer, PreTrainedTokenizerFast]:
    return ChatTemplate.from_folder(folder), Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)


def assert_equal(folder: Path, talk: list[dict[str, Any]]) -> str:
    """Our text and ids are transformers'; the text."""
    ours, tokenizer, oracle = parts(folder)
    messages = parse_messages(json.dumps(talk))
    text = oracle.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    ids = oracle.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert ours.render(messages) == text
    assert list(ours.encode(messages, tokenizer)) == ids
    return str(text)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content if m.content is string }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "system", "content": "Answer in rhyme."},
    {"role": "user", "content": "  Wie schön ist die Füchsin? 🦊\n\n    def f():\n        return '<b>'"},
    {"role": "assistant", "content": "<think>hm</think>\n\nSehr."},
    {"role": "user", "content": "And {{ 7 * 7 }} or {% raw %}?"},
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Århus", "days": [1, 2], "x": None}}}
TOOLS = [
    {"role": "user", "content": "Weather?", "name": "Anna"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "look it up"},
    {"role": "tool", "content": '{"rain": "<none>"}', "tool_call_id": "call_1"},
    {"role": "assistant", "content": "Dry.", "thinking": "it said none"},
    {"role": "user", "content": [{"type": "text", "text": "Thanks"}, {"type": "text", "text": "!"}]},
]
TEMPLATES = {
    "chatml": CHATML,
    "generation tag": (
        "{%- for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
        "{%- endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
    ),
    "tools and documents are None": (
        "{{ tools is none }}{{ tools is defined }}{% if tools is not none %}tools{% endif %}{{ documents is none }}"
        "{% if not date_string is defined %}no date{% endif %}{{ date_string }}|{{ add_generation_prompt }}"
    ),
    "tojson": (
        "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ messages[0] | tojson(ensure_ascii=True) }}"
        "{{ messages | tojson(separators=(',', ':'), sort_keys=True) }}{{ 'é<&>' | tojson }}"
    ),
    "globals": (
        "{% set ns = namespace(found=false) %}{% set ns.found = dict(a=1, b='x') %}{{ ns.found.items() | list }}"
        "{{ dict.fromkeys(['a']) }}{{ range(3) | list }}{{ strftime_now('%Y') | length }}"
        "{{ raise_exception is defined }}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}"
        "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}"
    ),
    "blocks": (
        "{{ bos_token }}\n{%- for m in messages %}\n    {%- if m.role == 'user' %}\n    [{{ m.role | upper }}]\n"
        "    {% endif %}\n  {# a comment #}\n{{ m.content }}\n{% endfor %}\n\n"
    ),
    "old thoughts are cut": (
        "{% for m in messages %}{% set c = m.content %}{% if c is string and '</think>' in c %}"
        "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n"
        "{% endfor %}"
    ),
    "further keys": (
        "{% for m in messages %}{{ m.role }}{% for key in m %}/{{ key }}{% endfor %}{{ m.name }}{{ m.tool_call_id }}"
        "{{ m.reasoning_content }}{{ m.thinking }}{% for call in m.tool_calls %}{{ call.function.arguments | tojson }}"
        "{% endfor %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}"
        "{% endfor %}{% endif %}{% endfor %}"
    ),
    "special tokens by name": (
        "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ sep_token is defined }}|{{ audio_token }}"
    ),
}
NAMES = {
    "pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": False, "rstrip": True, "normalized": False},
    "image_token": "<image>",
    "extra_special_tokens": {"audio_token": "<audio>"},
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("talk", [TALK, TOOLS], ids=["talk", "tools"])
def test_text_and_ids_are_those_of_apply_chat_template(
    tmp_path: Path, template: str, talk: list[dict[str, Any]]
) -> None:
    assert_equal(save(tmp_path, template, **NAMES), talk)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_reads_a_conversation_as_transformers_does(tmp_path: Path, kind: str) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    assert_equal(save(tmp_path, template, kind), TALK)


def test_old_thoughts_leave_the_prompt(tmp_path: Path) -> None:
    assert "hm" not in assert_equal(save(tmp_path, TEMPLATES["old thoughts are cut"]), TALK)


ADDED = {
    "501": {"content": "<tool>", "special": False, "normalized": False},
    "500": {"content": "<|eot|>", "special": True, "normalized": False},
    "0": {"content": "<|endoftext|>", "special": True, "rstrip": True, "normalized": False},
}


@pytest.mark.parametrize(
    "config",
    [
        {"added_tokens_decoder": ADDED},
        {"extra_special_tokens": ["<a>", "<b>"], "mask_token": "<mask>"},
        {"additional_special_tokens": ["<b>", {"__type": "AddedToken", "content": "<a>", "special": True}]},
        NAMES,
        {"model_specific_special_tokens": {"audio_token": "<audio>"}},
    ],
    ids=["added_tokens_decoder", "extra_special_tokens", "additional_special_tokens", "named", "model's own"],
)
def test_tokens_of_the_config_are_added_as_transformers_adds_them(tmp_path: Path, config: dict[str, Any]) -> None:
    _, tokenizer, oracle = parts(save(tmp_path, CHATML, **config))
    assert tokenizer.backend.get_vocab() == oracle.get_vocab()
    text = "a <tool> b<|eot|>  c<|endoftext|>  d <a><b> <mask> <pad>  <image> <audio>e"
    assert list(tokenizer.encode_bare(text)) == oracle(text, add_special_tokens=False)["input_ids"]
    assert sorted(tokenizer.special_tokens) == sorted(
        token_id for token_id, token in oracle.added_tokens_decoder.items() if token.special
    )


def test_an_end_token_that_only_the_config_names_is_one(tmp_path: Path) -> None:
    folder = save(tmp_path, CHATML, eos_token="<|eot|>", added_tokens_decoder={"500": {"content": "<|eot|>"}})
    _, tokenizer, oracle = parts(folder)
    assert tokenizer.eos_token_ids == (oracle.eos_token_id,)


def test_older_files_beside_the_config_are_read(tmp_path: Path) -> None:
    folder = save(tmp_path, "{{ bos_token }}{{ pad_token }}{{ messages[0].content }}")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>", "bos_token": "<|im_start|>"}))
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 601, "<x>": 600}))
    assert assert_equal(folder, [{"role": "user", "content": "a<x>b"}]) == "<|im_start|><pad>a<x>b"
    _, tokenizer, oracle = parts(folder)
    assert tokenizer.backend.get_vocab() == oracle.get_vocab()


def test_of_several_templates_the_default_is_taken_and_files_go_first(tmp_path: Path) -> None:
    folder = save(tmp_path, [{"name": "rag", "template": "rag"}, {"name": "default", "template": "{{ bos_token }}d"}])
    assert assert_equal(folder, TALK) == "<|endoftext|>d"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    with pytest.raises(TemplateError, match=r"tool_use.*none is called default"):
        ChatTemplate.from_folder(folder)
    (folder / "chat_template.jinja").write_text("file\n")
    assert assert_equal(folder, TALK) == "file"


@pytest.mark.parametrize(
    "stored", [7, [1], [{"name": {}, "template": "x"}], [{"name": [], "template": "x"}], [{"name": "default"}]]
)
def test_a_template_that_is_none_is_refused_in_one_line(tmp_path: Path, stored: Any) -> None:
    with pytest.raises(TemplateError, match="chat_template is neither") as caught:
        ChatTemplate.from_folder(save(tmp_path, stored))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": "\ud800"},
        {"added_tokens_decoder": {"7": {"content": "\udfff"}}},
        {"added_tokens_decoder": {"x": {"content": "y"}}},
        {"added_tokens_decoder": {"7": "y"}},
        {"added_tokens_decoder": [1]},
        {"added_tokens_decoder": {"7": {"content": "x", "special": "yes"}}},
        {"extra_special_tokens": "<a>"},
        {"extra_special_tokens": [7]},
    ],
)
def test_a_token_that_is_none_is_refused_in_one_line(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = save(tmp_path, CHATML, **config)
    for reader in (ChatTemplate.from_folder, Tokenizer.from_folder):
        with pytest.raises(TokenizerError, match=r"tokenizer_config\.json") as caught:
            reader(folder)
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value).isprintable()
