"""What of a choice is unfolded: its stages, or more draws from its final distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenglass.cli.widgets.stages import TEMPERATURES, DrawTable, StageTable, TemperatureTable, Unfolded
from tokenglass.model.records.steps import Choice

if TYPE_CHECKING:
    from tokenglass.model.sampling.stages import ChoiceLog

DRAWS = 100  # for each press of a key


@dataclass(slots=True)
class Unfolding:
    """`log` has what the choices were made of, where that is kept. Draws are those of one choice, and go with it."""

    log: ChoiceLog | None
    has_stages: bool
    _choice: Choice | None = None
    _draws: int = 0

    def obey(self, key: str, choice: Choice | None) -> None:
        """`u` shows the stages of every choice, or no longer where they are what is shown; `d` draws again from this
        one, each time a hundred times more."""
        if key == "d":
            self._choice, self._draws = choice, self.draws_of(choice) + DRAWS
        else:
            self.has_stages = not self.has_stages or self.draws_of(choice) > 0
            self._draws = 0

    def draws_of(self, choice: Choice | None) -> int:
        return self._draws if self._choice is choice else 0

    def word(self, choice: Choice | None) -> str:
        """What the key for stages does now; nothing where there are none."""
        if self.log is None:
            return ""
        return "fold" if self.has_stages and not self.draws_of(choice) else "unfold"

    def tables(self, choice: Choice | None) -> Unfolded | None:
        """What was asked for, of this choice; None where it is not known."""
        draws = self.draws_of(choice)
        if self.log is None or choice is None or not choice.candidates or not (draws or self.has_stages):
            return None
        entry = self.log.find(choice)
        if entry is None:
            return None
        if draws:
            return Unfolded(DrawTable(choice, entry.draw_again(draws)))
        token_ids = [candidate.token_id for candidate in choice.candidates]
        temperatures = [entry.at_temperature(token_ids, temperature) for temperature in TEMPERATURES]
        return Unfolded((StageTable(choice, entry.stages(token_ids)), TemperatureTable(choice, temperatures)))
