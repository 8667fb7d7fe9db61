"""Guessed tokens verified in one pass: exactly the autoregressive text, in fewer passes where the guesses are good.

Every verified position is decided by the sampler itself, with the number that is drawn for that position in any case;
a guess is accepted where it is that token (so the text does not depend on the guesses). Leviathan et al. 2023, arXiv
2211.17192; Jacobi decoding: Santilli et al. 2023, arXiv 2305.10427.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tokenglass.model.decoding.autoregressive import next_inputs
from tokenglass.model.decoding.drafts import Draft, Drafter, guess
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.decoding.sequences import Sequences
from tokenglass.model.engine.engine import Logits
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Choice, Phase, Record, Step
from tokenglass.model.text.tokenizer import Tokenizer


def decode_speculative(job: Job, drafter: Drafter, count: int = 8) -> Iterator[Record]:
    """Prefill, then at most `count` guesses and one verifying pass at a time.

    There are `count` guesses at first. After a wrong one there are one more than twice as many as were right, until
    more are right: a pass takes longer for each, and where one was wrong the next are seldom right.

    A step of phase draft holds the guesses where making them took a pass; a step of phase verify holds the choices:
    accepted guesses, the sampler's own token behind them, and the guess that was rejected for it. Raises what `decode`
    raises, and ParameterError.
    """
    return verify_drafts(job, drafter, count, "verify")


def decode_jacobi(job: Job, count: int = 16) -> Iterator[Record]:
    """Fixed-point iteration: each pass guesses `count` tokens anew from its guesses before; those that no longer change
    are the text. Works on any model. Raises what `decode_speculative` raises."""
    return verify_drafts(job, JacobiDrafter(), count, "jacobi")


class JacobiDrafter:
    """The guesses of the last pass; at first, and where they have run out, the last token again and again."""

    def __init__(self) -> None:
        self.guesses: list[int] = []

    def draft(self, sequence: Sequence, count: int) -> Draft:
        known = self.guesses[:count]
        return Draft((*known, *[sequence.token_ids[-1]] * (count - len(known))))

    def improve(self, sequence: Sequence, rows: Logits, settled: int, drafts: tuple[int, ...]) -> None:
        """New guesses for what lies behind the sequence, from the rows (positions, vocab) of the same pass.

        It settled so many tokens; fewer than none where a ban took back tokens of earlier passes, whose rows are gone.
        """
        self.guesses = []
        for row in range(settled, len(rows) if settled >= 0 else settled):
            guesses = [*drafts[settled:row]]  # what this row was computed from
            if not guess(sequence, rows[row], guesses):
                break
            self.guesses.append(guesses[-1])


def verify_drafts(job: Job, drafter: Drafter, count: int, phase: Phase) -> Iterator[Record]:
    """The records of a text whose guesses the `drafter` makes."""
    job = job.with_cache()
    engine, request, tokenizer, cache = job.engine, job.request, job.tokenizer, job.cache
    if cache is None:
        raise ParameterError("guesses are verified over the cache; leave out --no-cache")
    if request.negative_ids:
        raise ParameterError("a negative prompt needs a pass for each token; leave it out, or use autoregressive mode")
    if count < 1:
        raise ParameterError(f"the number of guesses is {count}; expected at least 1")
    sequence = job.new_sequence()
    length = count  # of the next draft

    def decode_once(recorder: Recorder) -> Iterator[Step]:
        nonlocal length
        rewound_to, has_begun = sequence.pop_rewind(), sequence.has_begun
        inputs = next_inputs(sequence.token_ids, cache, request.prefill_chunk)
        draft, decision = Draft(()), Decision((), "")
        reached = cache.lengths[0] + len(inputs) == len(sequence.token_ids)
        if reached and has_begun:
            room = min(length, job.planned_length - len(sequence.token_ids) - 1)
            draft = drafter.draft(sequence, room) if room > 0 else draft
            if draft.num_input_tokens:
                guesses = guessed_choices(sequence, tokenizer, draft)
                yield recorder.step("draft", draft.num_input_tokens, cache.usage(), guesses)
                recorder.begin()
        logits = engine.forward([[*inputs, *draft.token_ids]], cache, last=len(draft.token_ids) + 1)
        if reached:
            decision = verify(sequence, tokenizer, draft.token_ids, logits[0], drafter)
        if draft.token_ids and phase == "verify":
            right = sum(choice.status == "accepted" for choice in decision.choices)
            length = min(count, max(2 * right + 1, length if right == len(draft.token_ids) else 0))
        yield recorder.step(
            phase if has_begun else "prefill",
            len(inputs) + len(draft.token_ids),
            cache.usage(),
            decision.choices,
            decision.text,
            rewound_to=rewound_to,
        )

    return record(Sequences([sequence]), decode_once, request, job.interrupt)


def verify(
    sequence: Sequence, tokenizer: Tokenizer, drafts: tuple[int, ...], rows: Logits, drafter: Drafter
) -> Decision:
    """Decide from rows (guesses + 1, vocab) for as long as the guesses hold."""
    choices: list[Choice] = []
    text, start, is_rejected = "", len(sequence.token_ids), False
    while sequence.reason is None and sequence.rewound_to is None:
        settled = len(sequence.token_ids) - start
        if tuple(sequence.token_ids[start:]) != drafts[:settled] or settled >= len(rows):
            break
        decision = sequence.decide(rows[settled])
        text += decision.text
        for choice in decision.choices:
            place = choice.position - start
            wanted = drafts[place] if place < len(drafts) and not is_rejected else None
            if wanted is not None and wanted != choice.token_id:
                choices.append(rejected_choice(choice, wanted, tokenizer))
                is_rejected = True  # the guesses behind it were for another text
            holds = wanted == choice.token_id and choice.status == "sampled"
            choices.append(replace(choice, status="accepted") if holds else choice)
        if not decision.choices:
            break
    if isinstance(drafter, JacobiDrafter):
        drafter.improve(sequence, rows, len(sequence.token_ids) - start, drafts)
    return Decision(tuple(choices), text)


def rejected_choice(chosen: Choice, token_id: int, tokenizer: Tokenizer) -> Choice:
    """The guess that was not taken at this place, with its numbers where it was among the candidates."""
    known = next((c for c in chosen.candidates if c.token_id == token_id), None)
    return Choice(
        position=chosen.position,
        token_id=token_id,
        piece=tokenizer.piece(token_id),
        logprob=None if known is None else known.logprob,
        prob=None if known is None else known.prob,
        rank=None,
        entropy=chosen.entropy,
        draw=None,
        status="rejected",
    )


def guessed_choices(sequence: Sequence, tokenizer: Tokenizer, draft: Draft) -> tuple[Choice, ...]:
    """A draft's tokens, of which nothing is known yet."""
    start = len(sequence.token_ids)
    return tuple(
        Choice(start + place, token_id, tokenizer.piece(token_id), None, None, None, None, None, status="guessed")
        for place, token_id in enumerate(draft.token_ids)
    )
