"""What a logits processor, a sampler by its usual name, is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

from tokenglass.model.sampling.settings import KEY, Setting

if TYPE_CHECKING:
    from tokenglass.model.sampling.scores import Scores


class Processor(ABC):
    """What changes scores. Subclasses are frozen dataclasses whose fields are settings (`number`, `texts`); the first
    one says whether it is on."""

    __slots__ = ()
    name: ClassVar[str]
    only_for_draws: ClassVar[bool] = False  # without it the first token stays the first: greedy decoding leaves it out

    def __post_init__(self) -> None:
        """Raises ParameterError for a setting out of its range."""
        for field in setting_fields(type(self)):
            field.metadata[KEY].check(getattr(self, field.name))

    @abstractmethod
    def __call__(self, scores: Scores) -> None:
        """Change the scores in place; they remember what was done."""

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        return tuple(field.metadata[KEY] for field in setting_fields(cls))

    @classmethod
    def setting_types(cls) -> dict[str, Any]:
        """The types of the settings by their names."""
        hints = get_type_hints(cls)
        return {field.metadata[KEY].name: hints[field.name] for field in setting_fields(cls)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """With its part of the values of all settings."""
        return cls(**{field.name: values[field.metadata[KEY].name] for field in setting_fields(cls)})

    @property
    def values(self) -> dict[str, Any]:
        """Its values by the names of the settings."""
        return {field.metadata[KEY].name: getattr(self, field.name) for field in setting_fields(type(self))}

    @property
    def is_on(self) -> bool:
        first = setting_fields(type(self))[0]
        return bool(getattr(self, first.name) != first.metadata[KEY].off)

    def acts(self, is_greedy: bool) -> bool:
        """Whether decoding has a use for it."""
        return self.is_on and not (is_greedy and self.only_for_draws)

    @property
    def description(self) -> str:
        """Its values as text."""
        names = [field.name for field in setting_fields(type(self))]
        first, *others = ((name.replace("_", " "), getattr(self, name)) for name in names)
        return ", ".join((f"{first[1]}", *(f"{name} {value}" for name, value in others)))


def setting_fields(kind: type[Processor]) -> tuple[Field[Any], ...]:
    return tuple(field for field in fields(kind) if KEY in field.metadata)  # type: ignore[arg-type]  # a dataclass
