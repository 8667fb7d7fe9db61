"""What a run of several sequences cost as a whole. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenglass.model.records.steps import Finish, Record, Totals


class RunTotals:
    """Totals over all sequences: the tokens of every text that finished; a pass that several share counts once."""

    def __init__(self) -> None:
        self.finishes: list[Finish] = []
        self._passes: dict[int, tuple[bool, float]] = {}  # whether it was prefill, and its seconds
        self._prefilled = self._computed = 0

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            self.add(record)
            yield record

    def add(self, record: Record) -> None:
        if isinstance(record, Finish):
            self.finishes.append(record)
            return
        is_prefill = record.phase == "prefill"
        self._passes.setdefault(record.forward, (is_prefill, record.seconds))
        self._computed += record.num_input_tokens
        self._prefilled += record.num_input_tokens if is_prefill else 0

    @property
    def totals(self) -> Totals:
        finished = [finish.totals for finish in self.finishes]
        return Totals(
            new_tokens=sum(totals.new_tokens for totals in finished),
            forwards=len(self._passes),
            prefill_tokens=self._prefilled,
            prefill_seconds=sum(seconds for is_prefill, seconds in self._passes.values() if is_prefill),
            decode_tokens=sum(totals.decode_tokens for totals in finished),
            decode_seconds=sum(seconds for is_prefill, seconds in self._passes.values() if not is_prefill),
            positions_computed=self._computed,
            rewound_tokens=sum(totals.rewound_tokens for totals in finished),
            length=max((totals.length for totals in finished), default=0),
        )

    @property
    def finish(self) -> Finish:
        """The end of the run: as the first finished text ended, but cut short where any was."""
        cut = [finish for finish in self.finishes if finish.reason in ("interrupt", "error", "time")]
        first = (cut or self.finishes)[0]
        return Finish(first.sequence, first.reason, "", self.totals, first.score)
