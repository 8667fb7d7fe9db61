"""The processors that are on, in their order.

The default order is `tokenglass.model.sampling.parameters.IN_CHAIN`; guidance always comes first.
"""

from __future__ import annotations

from tokenglass.model.sampling.context import Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.rescaling import Guidance, Temperature
from tokenglass.model.sampling.scores import Scores

GREEDY = Temperature.name  # temperature 0 leaves the whole mass to one token


def build_chain(parameters: SamplingParameters) -> tuple[Processor, ...]:
    """The processors that are on, in their order. Greedy decoding needs only those that move single tokens."""
    acting = {p.name: p for p in parameters.processors if p.acts(parameters.is_greedy)}
    return tuple(acting[name] for name in (Guidance.name, *parameters.samplers) if name in acting)


def parts_in_order(chain: tuple[Processor, ...], masks: tuple[Mask, ...]) -> tuple[Processor | Mask, ...]:
    """Guidance, which asks for the model's own distribution, then the context's masks, then the others (as
    transformers has it)."""
    first = sum(isinstance(processor, Guidance) for processor in chain)
    return (*chain[:first], *masks, *chain[first:])


def apply_part(part: Processor | Mask, scores: Scores) -> None:
    """Raises NothingPossible, EngineError."""
    if isinstance(part, Mask):
        scores.mask(part)
    else:
        part(scores)


def apply_chain(chain: tuple[Processor, ...], scores: Scores) -> None:
    """Masks and processors in their order. Raises NothingPossible, EngineError."""
    for part in parts_in_order(chain, scores.context.masks):
        apply_part(part, scores)


def describe_chain(parameters: SamplingParameters) -> tuple[tuple[str, str], ...]:
    """Name and values of each processor in its order; last what is on and left out of `samplers`, or of no use."""
    chain = build_chain(parameters)
    lines = [(processor.name, processor.description) for processor in chain]
    if parameters.is_greedy:
        lines.append((GREEDY, "0 (greedy: the most probable token)"))
    for processor in parameters.processors:
        if processor.is_on and processor not in chain:
            reason = "greedy" if processor.name in parameters.samplers else "not in samplers"
            lines.append((processor.name, f"{processor.description} (off: {reason})"))
    return tuple(lines)
