"""A conversation that goes on, is answered anew, taken back and resumed says what a fresh one would say."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from test_chat import CHATML, chat_checkpoint

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.cached_conversation import CachedConversation
from tokenglass.model.decoding.conversation import Turn
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import PromptError, TemplateError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Record
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.chat import ChatTemplate, Message, has_template
from tokenglass.model.text.chat_process import TemplateProcess
from tokenglass.model.text.tokenizer import Tokenizer

PROCESS = TemplateProcess()  # one for all: each takes a while to start
BOLD = SamplingParameters(temperature=1.0, top_p=1.0)
STRICT = "{% if messages[0].role == 'assistant' %}{{ raise_exception('a user comes first') }}{% endif %}" + CHATML


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(chat_checkpoint(tmp_path_factory.mktemp("chat"), CHATML))


def begin(loaded: LoadedModel, template: str = CHATML, *messages: Message) -> CachedConversation:
    return CachedConversation(loaded.engine, loaded.tokenizer, ChatTemplate(template, {}, PROCESS), messages)


def request_of(turn: Turn, number: int, seed: int = 5, **options: object) -> Request:
    return Request(turn.prompt_ids, seed=seed, max_new_tokens=number, sampling=BOLD, **options)  # type: ignore[arg-type]


def answer(conversation: CachedConversation, turn: Turn, number: int, seed: int = 5, **options: object) -> list[Record]:
    request = request_of(turn, number, seed, min_new_tokens=turn.least, **options)
    return list(conversation.answer(turn, request, threading.Event()))


@settings(max_examples=15)
@given(whole=st.integers(2, 24), data=st.data())
def test_an_answer_that_went_on_is_the_one_that_was_longer_at_once(
    loaded: LoadedModel, whole: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(1, whole - 1))
    at_once, in_parts = begin(loaded), begin(loaded)
    answer(at_once, at_once.ask("hello there"), whole)
    answer(in_parts, in_parts.ask("hello there"), part)
    records = answer(in_parts, in_parts.go_on(), whole - part)
    assert records[0].num_input_tokens == 1  # type: ignore[union-attr]  # all else is in the cache
    assert in_parts.last is not None
    assert at_once.last is not None
    assert in_parts.last.choices == at_once.last.choices
    if "\ufffd" not in str(in_parts.messages[-1].content):  # a character that was cut cannot be mended
        assert in_parts.messages == at_once.messages


def test_an_answer_that_ended_by_itself_goes_on_with_one_token_at_least() -> None:
    tokenizer = Tokenizer(tiny.byte_level_tokenizer())
    (yes,), template = tokenizer.encode_bare("y"), ChatTemplate("{{ messages[-1].content }}", {})
    engine = tiny.ScriptedEngine(tiny.says(yes, 0, after=len(tokenizer.encode_bare("Hi"))))
    conversation = CachedConversation(engine, tokenizer, template)
    answer(conversation, conversation.ask("Hi"), 5, eos_token_ids=frozenset({0}))
    assert conversation.messages[-1].content == "y"
    answer(conversation, conversation.go_on(), 5, eos_token_ids=frozenset({0}))
    assert len(str(conversation.messages[-1].content)) > 1
    assert conversation.last is not None
    assert conversation.last.reason == "eos"


def test_a_stop_string_cuts_and_the_answer_goes_on_from_the_text(loaded: LoadedModel) -> None:
    conversation = begin(loaded)
    answer(conversation, conversation.ask("hello"), 24)
    whole = str(conversation.messages[-1].content)
    stop = whole[6:8]
    answer(conversation, conversation.retry(), 24, stops=(stop,))
    cut = str(conversation.messages[-1].content)
    assert cut == whole[: whole.index(stop)]
    turn = conversation.go_on()
    assert turn.prompt_ids == conversation.template.encode(turn.messages, loaded.tokenizer, cut)
    answer(conversation, turn, 4)
    assert str(conversation.messages[-1].content).startswith(cut)
    assert [message.role for message in conversation.messages] == ["user", "assistant"]


def test_thoughts_are_kept_beside_what_is_said_and_no_later_prompt_holds_them(loaded: LoadedModel) -> None:
    tokenizer = loaded.tokenizer
    conversation = begin(loaded)
    turn = conversation.ask("Why?")
    script = tokenizer.encode_bare("<think>\nthe fox\n</think>\n\nYes.") + tokenizer.encode_bare("<|im_end|>")
    conversation.engine = tiny.ScriptedEngine(tiny.says(*script, after=len(turn.prompt_ids)), limit=256)
    answer(conversation, turn, 60, eos_token_ids=frozenset({script[-1]}))
    message = conversation.messages[-1]
    assert message.fields == {"role": "assistant", "content": "Yes.", "reasoning_content": "the fox"}
    later = b"".join(map(tokenizer.piece, conversation.ask("And?").prompt_ids)).decode()
    assert "Yes." in later
    assert "the fox" not in later


@given(name=st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>"]), around=st.text("ab <|>\n", max_size=5))
def test_what_a_resumed_answer_says_is_text_and_never_control(loaded: LoadedModel, name: str, around: str) -> None:
    conversation = begin(loaded)
    content = f"x{around}{name}{around}x"
    control = loaded.tokenizer.backend.token_to_id(name)
    counts = []
    for text in ("x", content):
        conversation.resume([Message("user", "Hi"), Message("assistant", text)])
        counts.append([turn.prompt_ids.count(control) for turn in (conversation.ask("?"), conversation.go_on())])
    assert counts[0] == counts[1]
    ids = conversation.go_on().prompt_ids
    assert b"".join(map(loaded.tokenizer.piece, ids)).decode().endswith(content)


def test_messages_that_the_template_refuses_change_nothing(loaded: LoadedModel) -> None:
    conversation = begin(loaded, STRICT)
    conversation.resume([Message("user", "Hi")])
    before = conversation.messages
    with pytest.raises(TemplateError, match="a user comes first"):
        conversation.resume([Message("assistant", "Hi")])
    assert conversation.messages == before


@pytest.mark.parametrize("what", ["retry", "go_on", "undo"])
def test_where_nothing_was_said_there_is_nothing_to_do_again(loaded: LoadedModel, what: str) -> None:
    conversation = begin(loaded, CHATML, Message("system", "Be kind."))
    with pytest.raises(PromptError, match="there is no"):
        getattr(conversation, what)()


class Talk(RuleBasedStateMachine):
    """Any order of commands beside a plain list of (user, assistant): each answer is compared with a fresh cache."""

    loaded: LoadedModel

    @initialize()
    def begin(self) -> None:
        self.conversation = begin(type(self).loaded)
        self.system: str | None = None
        self.pairs: list[tuple[str, str]] = []

    @rule(text=st.sampled_from(["hello", "a fox", "?"]), seed=st.integers(0, 3))
    def ask(self, text: str, seed: int) -> None:
        if len(self.pairs) < 4:
            self.pairs.append((text, self.compare_answers(self.conversation.ask(text), seed)))
            self.compare()

    @precondition(lambda self: self.pairs)
    @rule(seed=st.integers(0, 3))
    def retry(self, seed: int) -> None:
        self.pairs[-1] = (self.pairs[-1][0], self.compare_answers(self.conversation.retry(), seed))
        self.compare()

    @precondition(lambda self: self.pairs)
    @rule()
    def undo(self) -> None:
        assert self.conversation.undo() == self.pairs.pop()[0]
        self.compare()

    @rule(text=st.sampled_from(["", "Be brief.", "Rhyme."]))
    def instruct(self, text: str) -> None:
        self.conversation.instruct(text)
        self.system = text or None
        self.compare()

    @rule()
    def resume(self) -> None:
        """As from a file."""
        if self.conversation.messages:
            self.conversation.resume([Message(m.role, m.content, m.fields) for m in self.conversation.messages])
            self.compare()

    @rule()
    def clear(self) -> None:
        self.conversation.clear()
        self.pairs = []
        self.compare()

    def compare_answers(self, turn: Turn, seed: int) -> str:
        records = answer(self.conversation, turn, 4, seed)
        fresh = decode(Job(self.conversation.engine, self.conversation.tokenizer, request_of(turn, 4, seed)))
        assert "".join(record.text for record in fresh) == "".join(record.text for record in records)
        return "".join(record.text for record in records)

    def compare(self) -> None:
        messages = [(message.role, message.content) for message in self.conversation.messages]
        system = [] if self.system is None else [("system", self.system)]
        assert messages == system + [
            part for asked, answer in self.pairs for part in (("user", asked), ("assistant", answer))
        ]


def test_any_order_of_commands_leaves_the_messages_and_the_cache_right(loaded: LoadedModel) -> None:
    class Walk(Talk):
        pass

    Walk.loaded = loaded
    Walk.TestCase.settings = settings(max_examples=12, stateful_step_count=12)
    Walk.TestCase().runTest()


def test_an_answer_that_was_stopped_before_its_first_text_leaves_the_last_one(loaded: LoadedModel) -> None:
    conversation = begin(loaded)
    answer(conversation, conversation.ask("hello"), 4)
    before, flag = conversation.messages, threading.Event()
    flag.set()
    list(conversation.answer(conversation.retry(), request_of(conversation.retry(), 4), flag))
    assert conversation.messages == before


def test_a_folder_is_a_chat_model_only_with_a_template_that_can_be_read(tmp_path: Path) -> None:
    assert not has_template(tmp_path)
    assert has_template(chat_checkpoint(tmp_path, CHATML))
    (tmp_path / "tokenizer_config.json").write_text("[")
    assert not has_template(tmp_path)
