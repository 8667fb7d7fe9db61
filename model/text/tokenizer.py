"""Text to token ids and back, byte-true."""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import tokenizers

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.errors import PromptError, TokenizerError, first_line
from tokenglass.model.files import MAX_TOKENIZER, read_bytes
from tokenglass.model.text.tokenizer_classes import conform
from tokenglass.model.text.tokenizer_config import FLAGS, NewToken, TokenizerConfig
from tokenglass.model.text.tokenizer_limits import is_vouched
from tokenglass.model.text.tokenizer_trial import try_out

MAX_VOCABULARY = 2**22  # beyond any model there is; some steps look at every id
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A checkpoint's tokenizer.json. Raises TokenizerError where it cannot be used."""

    def __init__(self, backend: tokenizers.Tokenizer, eos_token_ids: tuple[int, ...] = ()):
        self.backend = backend
        self.eos_token_ids = eos_token_ids
        backend.no_truncation()
        backend.no_padding()
        self._byte_level = backend.decoder is not None and b'"ByteLevel"' in backend.decoder.__getstate__()
        self._byte_fallback = backend.decoder is not None and b'"ByteFallback"' in backend.decoder.__getstate__()
        self._added = backend.get_added_tokens_decoder()
        # Those that are control: their names are read as them wherever they stand in a text
        self.special_tokens = {token_id: token for token_id, token in self._added.items() if token.special}
        self._byte_of = {ord(char): byte for byte, char in enumerate(byte_alphabet())}
        self._pieces: dict[int, bytes] = {}  # those that were asked for one by one
        self.start_ids = self._start_ids()

    @staticmethod
    def from_folder(folder: Path) -> Tokenizer:
        """Read tokenizer.json, and the end token that tokenizer_config.json names."""
        path = folder / "tokenizer.json"
        content = read_bytes(path, MAX_TOKENIZER, TokenizerError)
        if folder.resolve() != bundled_folder().resolve():
            with tokenizer_errors(str(path)):
                if not is_vouched(content):
                    try_out(content)
        config = TokenizerConfig.from_folder(folder)
        with tokenizer_errors(str(path)):
            backend = tokenizers.Tokenizer.from_buffer(content)
            conform(backend, config.tokenizer_class, config.settings)
            add_tokens(backend, config.added)
            end = backend.token_to_id(config.named.get("eos_token", ""))
            return Tokenizer(backend, () if end is None else (end,))

    def normalised_names(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens are read that are found in a text only once it is normalised."""
        names = {token_id for token_id, token in self.special_tokens.items() if token.normalized}
        if not names or self.backend.normalizer is None:
            return []
        with tokenizer_errors("the tokenizer"):
            encoding = self.backend.encode(text, add_special_tokens=False)
        return [place for token_id, place in zip(encoding.ids, encoding.offsets, strict=True) if token_id in names]

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids with the start token that the tokenizer's own post-processor adds, never twice."""
        plain = self.encode_bare(text)
        return plain if plain[: len(self.start_ids)] == self.start_ids else (*self.start_ids, *plain)

    def encode_bare(self, text: str) -> tuple[int, ...]:
        """Token ids of exactly this text, no start token; names of special tokens in it are those tokens.

        Raises PromptError for what no UTF-8 can spell.
        """
        return tuple(self._encoding(text).ids)

    def encode_offsets(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The same token ids, and the character that each begins with.

        Spaces that the tokenizer counts to no token are the next one's; tokens of one character begin with it.
        """
        encoding = self._encoding(text)
        offsets, end = [], 0
        for first, last in encoding.offsets:
            offsets.append(min(first, end))
            end = max(end, last)
        return tuple(encoding.ids), tuple(offsets)

    def _encoding(self, text: str) -> tokenizers.Encoding:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PromptError(
                "a text holds bytes that are not UTF-8, or half of a character; convert it first"
            ) from None
        with tokenizer_errors("the tokenizer"):
            return self.backend.encode(text, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out, bytes that are not UTF-8 as U+FFFD."""
        with tokenizer_errors("the tokenizer"):
            return str(self.backend.decode(list(token_ids), skip_special_tokens=True))

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id. Raises TokenizerError for an absurd one."""
        return len(self._names)

    @cached_property
    def pieces(self) -> list[bytes]:
        """`piece` of every id below `vocab_size`, spelt at once where each name is made of the byte-level alphabet."""
        names, added = self._names, self._added
        plain = ["" if name is None or token_id in added else name for token_id, name in enumerate(names)]
        table = np.full(512, -1)  # from characters to bytes
        table[list(self._byte_of)] = list(self._byte_of.values())
        chars = np.frombuffer("".join(plain).encode("utf-32-le"), np.uint32)
        spelt = table[np.minimum(chars, len(table) - 1)]
        if not self._byte_level or spelt.min(initial=0) < 0:
            return [self._spell(token_id, name) for token_id, name in enumerate(names)]
        joined = spelt.astype(np.uint8).tobytes()
        pieces = [joined[start:end] for start, end in pairwise(accumulate(map(len, plain), initial=0))]
        for token_id in added:
            pieces[token_id] = self._spell(token_id, names[token_id])
        return pieces

    def piece(self, token_id: int) -> bytes:
        """The bytes that one token stands for; the name of a special token; b"" for an id without a token."""
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._spell(token_id, self.backend.id_to_token(token_id))
        return piece

    @cached_property
    def _names(self) -> list[str | None]:
        """The name of each id, by a single call of the library: a large vocabulary takes it a third of a second."""
        ids = self.backend.get_vocab(with_added_tokens=True)
        largest = max(ids.values(), default=-1)
        if largest >= MAX_VOCABULARY:
            raise TokenizerError(f"a token has the id {largest:,}, more than {MAX_VOCABULARY:,}")
        names: list[str | None] = [None] * (largest + 1)
        for name, token_id in ids.items():
            names[token_id] = name
        for token_id, token in self._added.items():  # where a vocabulary has holes, one may have the id of a piece
            names[token_id] = token.content
        return names

    def _spell(self, token_id: int, name: str | None) -> bytes:
        if name is None or token_id in self.special_tokens:
            return (name or "").encode()
        if self._byte_level:
            known = [self._byte_of.get(ord(char)) for char in name]
            return bytes(byte for byte in known if byte is not None) if None not in known else name.encode()
        if self._byte_fallback and is_byte_token(name):
            return bytes([int(name[3:5], 16)])
        return name.replace("▁", " ").encode()

    def is_held(self, token_id: int) -> bool:
        """Whether the next token may still change the text: in a byte-fallback run, which hidden tokens do not end."""
        if self._byte_level:
            return False
        token = self.backend.id_to_token(token_id)
        return token is None or is_byte_token(token) or self.is_hidden(token_id)

    def is_hidden(self, token_id: int) -> bool:
        """Whether `decode` leaves this token out: a special token."""
        added = self._added.get(token_id)
        return added is not None and added.special

    def special_ids(self, names: Collection[str]) -> tuple[int, ...]:
        """The special tokens of these names, which no decoded text shows; other names are left out."""
        return tuple(token_id for token_id, token in self.special_tokens.items() if token.content in names)

    def _start_ids(self) -> tuple[int, ...]:
        probe = "a"
        plain = self.backend.encode(probe, add_special_tokens=False).ids
        whole = self.backend.encode(probe, add_special_tokens=True).ids
        starts = (k for k in range(len(whole) - len(plain) + 1) if whole[k : k + len(plain)] == plain)
        return tuple(whole[: next(starts, 0)])


class StreamingDetokenizer:
    """Text of a growing sequence, piece by piece; joined, it equals the decode of the whole.

    Only a window from the last sure border is decoded again. A piece is held back while it ends inside a character,
    or in a run of byte-fallback tokens that the next byte may still spoil.
    """

    __slots__ = ("_tokenizer", "state")

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Iterable[int] = ()):
        self._tokenizer = tokenizer
        # The ids before the last border, whose text is out, and those behind it. To set it is to go back.
        self.state: tuple[tuple[int, ...], tuple[int, ...]] = (tuple(prompt_ids), ())

    def add(self, token_id: int) -> str:
        """One more token; the text that became printable, "" while a character is incomplete."""
        known, new = self.state
        new = (*new, token_id)
        self.state = known, new
        text = self._new_text()
        if not text or text.endswith(REPLACEMENT) or self._tokenizer.is_held(token_id):
            return ""
        self.state = new, ()
        return text

    def flush(self) -> str:
        """What is still held back, incomplete characters as U+FFFD."""
        text = self._new_text()
        self.state = (), ()
        return text

    def _new_text(self) -> str:
        before, new = self.state
        known = self._tokenizer.decode(before)
        whole = self._tokenizer.decode((*before, *new))
        if not whole.startswith(known):  # the prompt ends inside a character
            known = known.rstrip(REPLACEMENT)
        return whole[len(known) :]


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (Radford et al. 2019, GPT-2).

    Printable bytes stand for themselves; the others take the code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def is_byte_token(token: str) -> bool:
    """Whether a token is a byte of SentencePiece's byte fallback, such as <0xE2>."""
    if len(token) != 6 or not (token.startswith("<0x") and token.endswith(">")):
        return False
    return all(digit in string.hexdigits for digit in token[3:5])


def add_tokens(backend: tokenizers.Tokenizer, tokens: Iterable[NewToken]) -> None:
    """Add what the vocabulary has not yet, or has with other flags; ids are given in this order.

    A token with a name, such as eos_token, is special even where tokenizer.json does not say so.
    """
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    new = []
    for token in tokens:
        there = known.get(token.content)
        flags = token.flags
        if flags is None:
            own = {} if there is None else {name: getattr(there, name) for name in FLAGS}
            flags = {"normalized": False, **own, "special": True}
        if there is None or any(getattr(there, name) != value for name, value in flags.items()):
            new.append(tokenizers.AddedToken(token.content, **flags))
    if new:
        backend.add_tokens(new)


@contextmanager
def tokenizer_errors(source: str) -> Iterator[None]:
    """Turn any failure of the tokenizers library, panics too, into a TokenizerError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library's panics are not Exceptions
        raise TokenizerError(f"{source}: cannot be used ({first_line(error)})") from None
