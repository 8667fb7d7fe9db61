"""The processors that are on, in their order.

The default order is `tokenglass.model.sampling.parameters.IN_CHAIN`; guidance always comes first.
"""

from __future__ import annotations

from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.rescaling import Guidance, Temperature
from tokenglass.model.sampling.scores import Scores

GREEDY = Temperature.name  # temperature 0 leaves the whole mass to one token


def build_chain(parameters: SamplingParameters) -> tuple[Processor, ...]:
    """The processors that are on, in their order. Greedy decoding needs only those that move single tokens."""
    acting = {p.name: p for p in parameters.processors if p.acts(parameters.is_greedy)}
    return tuple(acting[name] for name in (Guidance.name, *parameters.samplers) if name in acting)


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
    lines = [(processor.name, processor.description) for processor in chain]
    if parameters.is_greedy:
        lines.append((GREEDY, "0 (greedy: the most probable token)"))
    for processor in parameters.processors:
        if processor.is_on and processor not in chain:
            reason = "greedy" if processor.name in parameters.samplers else "not in samplers"
            lines.append((processor.name, f"{processor.description} (off: {reason})"))
    return tuple(lines)
