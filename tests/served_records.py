"""The records of what a stand-in of a server says."""

from __future__ import annotations

import threading
from typing import Any

from server_stand_in import StandIn

from tokenglass.model.decoding.request import Request
from tokenglass.model.records.steps import Choice, Record, Step
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sources.server.address import Address
from tokenglass.model.sources.server.client import Client
from tokenglass.model.sources.server.probe import probe
from tokenglass.model.sources.server.source import ServerSource

RAW = SamplingParameters(temperature=1.0, top_p=1.0)


def records_of(stand_in: StandIn, request: Request | None = None, prompt: Any = "The quick brown") -> list[Record]:
    """Of a completion; ten tokens of the raw distribution where no request says otherwise."""
    client = Client(Address.parse(stand_in.address))
    try:
        source = ServerSource(probe(client), prompt)
        request = request or Request((-1,), 1, RAW, max_new_tokens=10)
        return list(source.records(request, threading.Event()))
    finally:
        client.close()


def choices_of(records: list[Record]) -> list[Choice]:
    return [choice for record in records if isinstance(record, Step) for choice in record.choices]
