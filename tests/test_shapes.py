"""Forty shapes of popular checkpoints: ids, template text, end tokens, sampling and logits are those of transformers.

`python -m pytest -n 0 -s tests/test_shapes.py` prints the table.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from shapes import SHAPES, Shape
from torch_parts import as_tensor

from tokenglass.model.errors import TemplateError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.text.chat import ChatTemplate, parse_messages

TEXTS = [
    "Once upon a time there was a little fox.",
    "  two spaces,\ttab,\n\nlines\n    def f(x):\n        return x  # 12345 + 6.7e8",
    "Où est l'été? Привет, мир! 日本語のテキスト。 👩‍👩‍👧‍👦 é",
    "I'm sure they'LL say it's 'fine'... <b>bold</b> & [INST]",
    " ",
    "",
    "x",
    "a<|im_end|>b</s>c <|eot_id|> d<end_of_turn>\ne",
]
ANSWER = "<think>\nIt is short.\n</think>\n\nThe fox said hello."
CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Århus", "days": 2}},
}
SYSTEM = {"role": "system", "content": "Answer in rhyme."}
TALKS: dict[str, list[dict[str, Any]]] = {
    "user": [{"role": "user", "content": "  Wie schön ist die Füchsin? "}],
    "system": [SYSTEM, {"role": "user", "content": "Hello\n    world"}],
    "turns": [
        {"role": "user", "content": "Tell me of the fox."},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "And the bear?\n\n"},
        {"role": "assistant", "content": "The bear said that the forest was cold."},
        {"role": "user", "content": "Is <b>that</b> all?"},
    ],
    "begun": [{"role": "user", "content": "Name a colour."}],
    "tools": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": '{"rain": "<none>"}', "tool_call_id": "call12345"},
        {"role": "assistant", "content": "Dry."},
        {"role": "user", "content": "Thanks!"},
    ],
}
BEGUN = " It is"


@pytest.fixture(scope="module", params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("shape"))


class Case:
    """A shape's folder, read by transformers and by us."""

    def __init__(self, name: str, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  (takes seconds)

        self.name, self.shape, self.folder = name, SHAPES[name], folder
        write(self.shape, folder)
        self.their_tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.ours: LoadedModel = load_model(folder, dtype="float32")

    def talks(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for name, talk in TALKS.items():
            allowed = {"system": self.shape.system, "tools": self.shape.tools}.get(name, True)
            if self.shape.template is not None and allowed:
                yield name, talk


def write(shape: Shape, folder: Path) -> None:
    """The files of a checkpoint with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    tokenizer = shape.tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos": shape.settings.get("bos_token"), "eos": shape.settings.get("eos_token") or "<|endoftext|>"}

    def with_ids(content: dict[str, Any]) -> dict[str, Any]:
        def id_of(value: Any) -> Any:
            if isinstance(value, list):
                return [id_of(item) for item in value]
            return tokenizer.token_to_id(named.get(value) or value) if isinstance(value, str) else value

        return {key: id_of(value) if key.endswith("token_id") else value for key, value in content.items()}

    config = {**with_ids(shape.config), "vocab_size": tokenizer.get_vocab_size() - shape.more_tokens}
    torch.manual_seed(0)
    options = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype")}
    made = AutoConfig.for_model(**json.loads(json.dumps(options)))
    made.initializer_range = 0.3
    made.pad_token_id = None
    model = AutoModelForCausalLM.from_config(made)
    (model.base_model if "Embedding" in str(shape.settings) else model).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if shape.generation is not None:
        recommended = {"bos_token_id": "bos", "eos_token_id": "eos", **shape.generation}
        (folder / "generation_config.json").write_text(json.dumps(with_ids(recommended)))
    settings = {**shape.settings, **({} if shape.template is None else {"chat_template": shape.template})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_ids_of_texts(case: Case) -> None:
    for text in TEXTS:
        theirs = case.their_tokenizer(text)["input_ids"]
        assert list(case.ours.tokenizer.encode(text)) == theirs, text
        assert case.ours.tokenizer.decode(theirs) == case.their_tokenizer.decode(theirs, skip_special_tokens=True), text


def test_ids_of_any_text(case: Case) -> None:
    """Texts of words, spaces, digits, other alphabets and names of special tokens, put together at random."""
    chance = random.Random(7)
    parts = [
        *" \n\t▁é1",
        "  ",
        "    ",
        "\n\n",
        "the",
        " fox",
        "X",
        "'ll",
        "2024",
        "日本",
        "🦊",
        "<",
        "e\u0301",
        "\u00a0",
        "\r\n",
    ]
    parts += [*case.their_tokenizer.get_added_vocab(), "<s>", "<0x41>"]
    for _ in range(60):
        text = "".join(chance.choices(parts, k=chance.randint(1, 12)))
        ids = case.their_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert list(case.ours.tokenizer.encode_bare(text)) == ids, text
        assert case.ours.tokenizer.decode(ids) == case.their_tokenizer.decode(ids, skip_special_tokens=True), text


def test_text_and_ids_of_conversations(case: Case) -> None:
    if case.shape.template is None:
        return
    template = ChatTemplate.from_folder(case.folder)
    for name, talk in case.talks():
        messages = parse_messages(json.dumps(talk))
        try:
            text = case.their_tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        except jinja2.TemplateError:
            with pytest.raises(TemplateError):
                template.render(messages)
            continue
        assert template.render(messages) == text, name
        begun = BEGUN if name == "begun" else ""
        ids = case.their_tokenizer(text + begun, add_special_tokens=False)["input_ids"]
        assert list(template.encode(messages, case.ours.tokenizer, begun=begun)) == ids, name


def test_a_special_token_s_name_in_a_message_is_text(case: Case) -> None:
    if case.shape.template is None:
        return
    template = ChatTemplate.from_folder(case.folder)
    for name in case.their_tokenizer.all_special_tokens:
        (plain, smuggled) = (
            template.encode(parse_messages(json.dumps([{"role": "user", "content": content}])), case.ours.tokenizer)
            for content in ("a b", f"a{name}b")
        )
        token_id = case.their_tokenizer.convert_tokens_to_ids(name)
        assert smuggled.count(token_id) == plain.count(token_id), name


def test_end_tokens(case: Case) -> None:
    theirs = case.theirs.generation_config.eos_token_id
    assert case.ours.checkpoint.eos_token_ids == tuple(theirs if isinstance(theirs, list) else [theirs])


def test_recommended_sampling(case: Case) -> None:
    """Where a file recommends how to draw, the whole of it is transformers', what it leaves out too."""
    theirs, ours = case.theirs.generation_config, case.ours.checkpoint.generation_config.sampling()
    if (case.shape.generation or {}).get("do_sample"):
        unset = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}
        for key, default in unset.items():
            named = getattr(theirs, key)
            assert getattr(ours, key) == (default if named is None else named), key


def test_logits(case: Case) -> None:
    ids = torch.randint(0, case.ours.engine.vocab_size, (1, 90), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = case.theirs.float()(ids).logits
    ours = as_tensor(case.ours.engine.forward(ids, None, last=None))
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    ends, talks = case.ours.checkpoint.eos_token_ids, [name for name, _ in case.talks()]
    class_name = type(case.their_tokenizer).__name__
    print(
        f"\n{case.name}: {case.shape.config['model_type']}, {class_name}, {case.ours.tokenizer.vocab_size} tokens, "
        f"talks {', '.join(talks) or 'none'}, ends {ends}, logits within {float((ours - theirs).abs().max()):.1e}"
    )
