"""Beam search: the most probable continuations as whole texts, several kept at each step.

The search of transformers' `generate(num_beams=N, do_sample=False)`, so that scores can be compared. Processors and
masks move log-probabilities, and what they leave is not normalised again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tokenglass.model.decoding.beam_search import BeamParameters, Move, Search
from tokenglass.model.decoding.guidance import Negative
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Phase, Record, Step


def decode_beams(job: Job, parameters: BeamParameters) -> Iterator[Record]:
    """Prefill the prompt once, then extend all beams together until no better text is to be expected.

    A Step per beam and forward pass: those that go on, best first, those that end, those that are pruned. A beam that
    is not its parent's best continuation has a new number, and `parent` in its first step, which computes nothing. Last
    comes a Finish for each of the best texts, best first, with the whole text and its score. Temperature and what only
    a draw needs have no say. Raises PromptError and ParameterError; an error in a later pass comes behind a Finish for
    each beam, with reason "error" where it was running.
    """
    check_beams(job.request)
    request = replace(job.request, sampling=job.request.sampling.replace(temperature=0.0))
    engine, job = job.engine, replace(job, request=request)
    search = Search(job.new_sequence(), parameters, len(request.eos_token_ids))
    cache = engine.new_cache(planned_length=job.planned_length)
    negative = Negative(engine, request) if request.negative_ids else None

    def decode_once(recorder: Recorder) -> Iterator[Step]:
        phase: Phase = "decode" if search.has_begun else "prefill"
        texts, done = [beam.sequence.token_ids for beam in search.running], cache.lengths[0]
        inputs = [token_ids[done : done + request.prefill_chunk] for token_ids in texts]
        logits = [row[-1] for row in engine.forward(inputs, cache)]
        usage = cache.usage()
        moves = [Move(search.running[0])]
        if cache.lengths[0] == len(texts[0]):
            moves = search.extend(logits, None if negative is None else negative.rows(texts))
            rows = [beam.row for beam in search.running]
            if rows and rows != list(range(len(cache.rows))):
                cache.select(rows)
                if negative is not None:
                    negative.select(rows)
        for move in moves:
            if move.parent is not None:
                recorder.branch(move.parent, move.beam.sequence.number)
        for move in moves:
            yield recorder.step(
                phase,
                len(inputs[0]) if move.parent is None else 0,
                usage,
                () if move.choice is None else (move.choice,),
                sequence=move.beam.sequence.number,
                parent=move.parent,
            )

    return record(search, decode_once, request, job.interrupt)


def check_beams(request: Request) -> None:
    """Raises ParameterError for what does not go with several texts at once."""
    if request.bans:
        raise ParameterError("a ban takes back a single text, and beams are several; leave out one of the two")
    if not request.use_cache:
        raise ParameterError("beams share a prefill in the cache; leave out one of the two")
