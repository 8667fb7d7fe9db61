"""Try out a tokenizer.json in a process with limits: as the parent's call, and as that process's program.

The process reads the file from stdin, loads it, encodes texts that are hard on patterns, and decodes every token. Its
status 0 says that all of it took little; one line on stdout says what was wrong.
"""

from __future__ import annotations

import contextlib
import re
import string
import subprocess
import sys

from tokenglass.model.errors import TokenizerError

SECONDS = 30
CPU_SECONDS = 15
MEMORY_BYTES = 4 * 2**30
MAX_IDS = 2**22  # of all probes together, and characters decoded of one slice of the vocabulary
LONG = 2000  # characters of one run
PROSE = "The fox (who was cold) said: 12,345 times no! Où est l'été? 日本語。 🦊👩\u200d👧\n\n    def f(x): return x"


def try_out(content: bytes) -> None:
    """Raises TokenizerError where the library fails on it, or needs too much time or memory."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tokenglass.model.text.tokenizer_trial"],
            input=content,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise TokenizerError(f"a first text takes it more than {SECONDS} seconds") from None
    if done.returncode == 1 and done.stdout:
        raise TokenizerError(done.stdout.decode("utf-8", "replace").strip())
    if done.returncode:
        raise TokenizerError("a first text takes it too long, or too much memory")


def main() -> int:
    limit_this_process()
    import tokenizers  # noqa: PLC0415  (within the limits)

    content = sys.stdin.buffer.read()
    try:
        use(tokenizers.Tokenizer.from_buffer(content), content)
    except MemoryError:
        raise
    except BaseException as error:  # the library's panics are not Exceptions
        line = (str(error).splitlines() or [type(error).__name__])[0]
        sys.stdout.buffer.write(line[:500].encode("utf-8", "replace"))
        return 1
    return 0


def use(backend: object, content: bytes) -> None:
    """Everything that may be asked of it later."""
    import tokenizers  # noqa: PLC0415  (the parent never loads it for this)

    assert isinstance(backend, tokenizers.Tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode("a")
    total = sum(len(backend.encode(text, add_special_tokens=False).ids) for text in probes(content))
    size = backend.get_vocab_size()
    lengths = [len(backend.decode([token_id], skip_special_tokens=False)) for token_id in range(size)]
    for start in range(0, size, 256):
        lengths.append(len(backend.decode(list(range(start, min(start + 256, size))))))
    if max(total, *lengths, 0) > MAX_IDS:
        raise ValueError("it makes far more of a text than there is")


def probes(content: bytes) -> list[str]:
    """Texts that patterns may be slow on: long runs, above all of the characters that the patterns name, each with an
    end that fits nothing."""
    patterns = b" ".join(re.findall(rb'"Regex"\s*:\s*"((?:[^"\\]|\\.)*)"', content)).decode("utf-8", "replace")
    named = sorted(set(patterns))[:48]
    pairs = [first + second for first in named[:12] for second in named[:12]]
    units = [*" \n\taA1.é日\u0301", *named, *pairs, "aA", " \n", "a1", "a "]
    return ["", (PROSE + string.printable) * 20, *(unit * (LONG // len(unit)) + "\x00" for unit in units)]


def limit_this_process() -> None:
    with contextlib.suppress(ImportError):  # not on Windows, where the parent's patience alone remains
        import resource  # noqa: PLC0415  (POSIX only)

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
