"""What a checkpoint says of how to generate: each key is applied, or reported by name. No torch here.

The keys, and what they mean, are those of GenerationConfig in Hugging Face transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenglass.model.config.fields import MAX_INTEGER, first_few, quote
from tokenglass.model.errors import ConfigError, ParameterError, PromptError
from tokenglass.model.files import read_json
from tokenglass.model.sampling.parameters import LISTED, SETTINGS, SamplingParameters
from tokenglass.model.sampling.settings import Number

FILE = "generation_config.json"
DRAWS, OTHERS = (  # settings that shape a draw, and the others: what each is in transformers where a file leaves it out
    {
        setting.name: setting.in_transformers
        for kind in LISTED
        for setting in kind.settings()
        if kind.only_for_draws is of_draws and isinstance(setting, Number) and setting.in_transformers is not None
    }
    for of_draws in (True, False)
)
APPLIED = frozenset(
    {
        *("do_sample", *DRAWS, *OTHERS),
        *("eos_token_id", "stop_strings", "max_time"),
        *("max_new_tokens", "max_length", "min_new_tokens", "min_length"),
    }
)
NOT_APPLIED: dict[str, tuple[tuple[object, ...], str]] = {  # the values that ask for nothing, and what does the same
    "num_beams": ((1,), "--beams"),
    "length_penalty": ((1,), "--length-penalty, with --beams"),
    "early_stopping": ((False,), "--early-stopping, with --beams"),
    "num_return_sequences": ((1,), "--num-samples"),
    "guidance_scale": ((1,), "--guidance, with --negative"),
    "token_healing": ((False,), "--heal"),
    "prompt_lookup_num_tokens": ((), "--mode speculative"),
    "bad_words_ids": (([],), "--ban or --logit-bias"),
    "sequence_bias": (([], {}), "--logit-bias"),
    "suppress_tokens": (([],), "--logit-bias"),
    **dict.fromkeys(("top_h", "forced_bos_token_id", "forced_eos_token_id", "watermarking_config"), ((), "")),
    **dict.fromkeys(("exponential_decay_length_penalty", "dola_layers", "constraints", "force_words_ids"), ((), "")),
    **dict.fromkeys(("max_matching_ngram_size", "assistant_early_exit", "assistant_ensemble_weight"), ((), "")),
    **dict.fromkeys(("speculation_type", "cache_config"), ((), "")),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "penalty_alpha", "diversity_penalty"), ((0,), "")),
    **dict.fromkeys(("encoder_repetition_penalty", "num_beam_groups"), ((1,), "")),
    **dict.fromkeys(("renormalize_logits", "remove_invalid_values", "use_mtp", "is_assistant"), ((False,), "")),
    **dict.fromkeys(("assistant_lookbehind", "target_lookbehind"), ((10,), "")),
    "encoder_no_repeat_ngram_size": ((0,), ""),
    "begin_suppress_tokens": (([],), ""),
    "num_assistant_tokens": ((20,), ""),
    "num_assistant_tokens_schedule": (("constant",), ""),
    "assistant_confidence_threshold": ((0.4,), ""),
    "cache_implementation": (("dynamic", "static", "hybrid", "offloaded", "offloaded_static", "paged"), ""),
}
WITHOUT_EFFECT = frozenset(  # on the tokens that come
    {
        *("bos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "max_cache_len"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("compile_config", "disable_compile", "continuous_batching_config", "low_memory", "prefill_chunk_size"),
        *("transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash"),
    }
)
KNOWN = APPLIED | NOT_APPLIED.keys() | WITHOUT_EFFECT


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The keys of a checkpoint's generation_config.json. A key that is null counts as absent.

    Every answer raises ParameterError for a key of another type or out of its range.
    """

    keys: Mapping[str, Any]
    source: str = FILE  # begins each message

    @staticmethod
    def from_folder(folder: Path, config: Mapping[str, Any]) -> GenerationConfig:
        """generation_config.json; only where there is none, what config.json says of generating, as transformers does.

        Raises ConfigError.
        """
        if (folder / FILE).exists():
            return GenerationConfig(read_json(folder / FILE))
        return GenerationConfig({key: value for key, value in config.items() if key in KNOWN}, "config.json")

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens it names; numbers below 0 name none, as in transformers. Raises ConfigError."""
        value = self.keys.get("eos_token_id")
        token_ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in token_ids):
            raise ConfigError(f"{self.source}: eos_token_id is {quote(value)}; expected a token id or a list of them")
        return tuple(dict.fromkeys(token_id for token_id in token_ids if token_id >= 0))

    def sampling(self, **chosen: Any) -> SamplingParameters:
        """How to draw, with the parameters that somebody chose in the place of its own.

        A file that names do_sample or how to draw is followed whole, and what it leaves out is as in transformers:
        temperature 1, top-k 50, top-p 1. One that says nothing of it leaves this program's defaults.
        """
        draws: dict[str, Any] = {}
        do_sample = self._flag("do_sample")
        if do_sample is False and "temperature" not in chosen:
            draws = {**{name: SETTINGS[name].off for name in DRAWS}, "temperature": 0.0}
        elif do_sample is not None or any(self.keys.get(name) is not None for name in DRAWS):
            draws = {**DRAWS, **self._numbers(DRAWS, chosen)}
        others = self._numbers(OTHERS, chosen)
        try:
            parameters = SamplingParameters(**draws, **others)
        except ParameterError as error:
            raise ParameterError(f"{self.source}: {error}") from None
        return parameters.replace(**chosen)

    def max_new_tokens(self, prompt_length: int, default: int) -> int:
        """max_new_tokens, else what max_length leaves behind the prompt. Raises PromptError where that is nothing."""
        new_tokens, length = self._count("max_new_tokens", 1), self._count("max_length", 1)
        if new_tokens is not None or length is None:
            return default if new_tokens is None else new_tokens
        if length <= prompt_length:
            raise PromptError(
                f"the prompt is {prompt_length:,} tokens, and {self.source} ends every text at {quote(length)} "
                "(max_length); give --max-new-tokens"
            )
        return length - prompt_length

    def min_new_tokens(self, prompt_length: int) -> int:
        """min_new_tokens, else what min_length asks for behind the prompt."""
        new_tokens, length = self._count("min_new_tokens", 0), self._count("min_length", 0)
        return max(0, (length or 0) - prompt_length) if new_tokens is None else new_tokens

    @property
    def max_seconds(self) -> float | None:
        """max_time."""
        seconds = self._numbers(("max_time",), ()).get("max_time")
        if seconds is not None and not seconds > 0:
            raise self._wrong("max_time", "more than 0 seconds")
        return seconds

    @property
    def stop_strings(self) -> tuple[str, ...]:
        value = self.keys.get("stop_strings")
        texts = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) and text for text in texts):
            raise self._wrong("stop_strings", "a text or a list of them, none empty")
        return tuple(texts)

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each key that asks for something and is not applied."""
        asked = {key: value for key, value in self.keys.items() if value is not None}
        lines = [
            f"{self.source} asks for {key} {quote(asked[key])}, which is not applied{instead and f'; try {instead}'}"
            for key, (neutral, instead) in NOT_APPLIED.items()
            if key in asked and key not in APPLIED and asked[key] not in neutral
        ]
        unknown = [quote(key) for key in asked if key not in KNOWN]
        if unknown:
            lines.append(f"{self.source} holds keys that are not known: {first_few(unknown)}")
        return tuple(lines)

    def _wrong(self, key: str, expected: str) -> ParameterError:
        return ParameterError(
            f"{self.source}: {key} is {quote(self.keys[key])}; expected {expected} (an option goes before the file)"
        )

    def _flag(self, key: str) -> bool | None:
        value = self.keys.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def _count(self, key: str, least: int) -> int | None:
        value = self.keys.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_INTEGER:
            raise self._wrong(key, f"a whole number, {least} or more")
        return value

    def _numbers(self, keys: Iterable[str], chosen: Any) -> dict[str, Any]:
        """The keys that are there, but for those that somebody chose."""
        numbers = {key: self.keys[key] for key in keys if key not in chosen and self.keys.get(key) is not None}
        for key, value in numbers.items():
            is_whole = key in SETTINGS and isinstance(SETTINGS[key].default, int)
            if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
                raise self._wrong(key, "a whole number" if is_whole else "a number")
            if abs(value) > MAX_INTEGER:
                raise ParameterError(f"{self.source}: {key} is too large a number")
        return numbers
