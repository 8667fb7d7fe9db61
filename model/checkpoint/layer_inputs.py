"""Embeddings of each layer: what every layer takes in of the token itself, beside the residual stream (Gemma 3n and 4).

rows = (norm(projection(embedding)) + sqrt(size) * table[token]) / sqrt(2)   # one of `size` for each layer
x + norm(output(activation(gate(x)) * rows[layer]))                          # at the end of a layer
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenglass.model.checkpoint.parts import Normalisation, Projection, Table, norm_of
from tokenglass.model.config.config import ModelConfig


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of a token, all layers' side by side: from a table, and from the token's embedding."""

    table: Table  # stays as it is stored: a step reads one row of it
    projection: Projection
    norm: Normalisation
    size: int  # of one layer's
    hidden: int

    @property
    def table_scale(self) -> float:
        return math.sqrt(self.size)

    @property
    def projection_scale(self) -> float:
        return self.hidden**-0.5

    @property
    def sum_scale(self) -> float:
        return math.sqrt(0.5)

    @property
    def parts(self) -> tuple[Table | Projection | Normalisation, ...]:
        return self.table, self.projection, self.norm


@dataclass(frozen=True, slots=True)
class TokenInput:
    """How a layer takes its row in."""

    gate: Projection
    output: Projection
    norm: Normalisation
    activation: str

    @property
    def parts(self) -> tuple[Projection | Normalisation, ...]:
        return self.gate, self.output, self.norm


def token_rows_of(config: ModelConfig, prefix: str) -> TokenRows | None:
    """Those of a model; None where it has none."""
    inputs = config.layer_inputs
    if inputs is None:
        return None
    width = config.num_layers * inputs.size
    return TokenRows(
        table=Table(f"{prefix}embed_tokens_per_layer", inputs.rows, width),
        projection=Projection(f"{prefix}per_layer_model_projection", width, config.hidden_size),
        norm=norm_of(config, f"{prefix}per_layer_projection_norm", inputs.size),
        size=inputs.size,
        hidden=config.hidden_size,
    )


def token_input_of(config: ModelConfig, prefix: str) -> TokenInput | None:
    """That of one layer, whose weights' names begin with `prefix`."""
    inputs = config.layer_inputs
    if inputs is None:
        return None
    return TokenInput(
        gate=Projection(f"{prefix}per_layer_input_gate", inputs.size, config.hidden_size),
        output=Projection(f"{prefix}per_layer_projection", config.hidden_size, inputs.size),
        norm=norm_of(config, f"{prefix}post_per_layer_input_norm", config.hidden_size),
        activation=config.activation,
    )
