"""The processors that are on, in their order.

The default order is `tokenglass.model.sampling.parameters.SAMPLERS`; guidance always comes first.
"""

from __future__ import annotations

from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.penalties import FrequencyPenalty, LogitBias, PresencePenalty, RepetitionPenalty
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.repeats import DRY, NoRepeatNgram
from tokenglass.model.sampling.rescaling import Guidance, Temperature
from tokenglass.model.sampling.scores import Scores
from tokenglass.model.sampling.truncation import XTC, MinP, TopK, TopNSigma, TopP, TypicalP

GREEDY = "temperature"  # temperature 0 leaves the whole mass to one token
ONLY_DRAWN = (Temperature, TopNSigma, TopK, TopP, MinP, TypicalP, XTC)  # without them the first token stays the first


def build_chain(parameters: SamplingParameters) -> tuple[Processor, ...]:
    """The processors that are on, in their order. Greedy decoding needs only those that move single tokens."""
    given = {processor.name: processor for processor in switched_on(parameters)}
    ordered = [given[name] for name in ("guidance", *parameters.samplers) if name in given]
    return tuple(p for p in ordered if not (parameters.is_greedy and isinstance(p, ONLY_DRAWN)))


def apply_chain(chain: tuple[Processor, ...], scores: Scores) -> None:
    """Guidance, which asks for the model's own distribution, then the context's masks, then the others (as
    transformers has it). Raises NothingPossible, EngineError."""
    first = [processor for processor in chain if isinstance(processor, Guidance)]
    for guidance in first:
        guidance(scores)
    for mask in scores.context.masks:
        scores.mask(mask)
    for processor in chain[len(first) :]:
        processor(scores)


def describe_chain(parameters: SamplingParameters) -> tuple[tuple[str, str], ...]:
    """Name and values of each processor in its order; last what is on and left out of `samplers`, or of no use."""
    chain = build_chain(parameters)
    told = [(processor.name, processor.settings) for processor in chain]
    if parameters.is_greedy:
        told.append((GREEDY, "0 (greedy: the most probable token)"))
    for processor in switched_on(parameters):
        if processor in chain:
            continue
        is_listed = processor.name in parameters.samplers
        told.append((processor.name, f"{processor.settings} (off: {'greedy' if is_listed else 'not in samplers'})"))
    return tuple(told)


def switched_on(p: SamplingParameters) -> tuple[Processor, ...]:
    """What the parameters ask for, in the default order."""
    window = p.penalty_window
    settings: tuple[tuple[object, Processor], ...] = (
        (p.guidance_scale != 1, Guidance(p.guidance_scale)),
        (p.logit_bias, LogitBias(p.logit_bias)),
        (p.repetition_penalty != 1, RepetitionPenalty(p.repetition_penalty, window)),
        (p.presence_penalty, PresencePenalty(p.presence_penalty, window)),
        (p.frequency_penalty, FrequencyPenalty(p.frequency_penalty, window)),
        (p.dry_multiplier, DRY(p.dry_multiplier, p.dry_base, p.dry_allowed_length, p.dry_sequence_breakers, window)),
        (p.no_repeat_ngram_size, NoRepeatNgram(p.no_repeat_ngram_size)),
        (p.temperature, Temperature(p.temperature)),
        (p.top_n_sigma, TopNSigma(p.top_n_sigma)),
        (p.top_k, TopK(p.top_k)),
        (p.top_p < 1, TopP(p.top_p)),
        (p.min_p, MinP(p.min_p)),
        (p.typical_p < 1, TypicalP(p.typical_p)),
        (p.xtc_probability, XTC(p.xtc_probability, p.xtc_threshold)),
    )
    return tuple(processor for is_on, processor in settings if is_on)
