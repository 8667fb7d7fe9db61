"""Configs of models that see or hear, around a text model: which part of them is that of the text. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ConfigError

PARTS = ("text_config", "vision_config", "audio_config")
MULTIMODAL_ROPE = ("mrope_section", "mrope_interleaved")


@dataclass(frozen=True, slots=True)
class Wrapper:
    """The model_type of its text where the file names none, and transformers' defaults of what the file leaves out."""

    text: str
    tied: bool = False
    media: tuple[int, ...] = ()  # ids that stand for a piece of an image or a sound
    fixed: Mapping[str, Any] = field(default_factory=dict)  # of the text, whatever the file says


QWEN_MEDIA = (151655, 151656)
QWEN3_5_MEDIA = (248056, 248057)
WRAPPERS: Mapping[str, Wrapper] = {
    "gemma3": Wrapper("gemma3_text", tied=True, media=(262144,)),
    "gemma4": Wrapper("gemma4_text", tied=True, media=(258880, 258884, 258881)),
    "mistral3": Wrapper("mistral", tied=True, media=(10,)),
    "llava": Wrapper("llama", media=(32000,)),
    "llava_next": Wrapper("llama", media=(32000,)),
    "llava_onevision": Wrapper("qwen2", media=(151646, 151647)),
    "idefics3": Wrapper("llama", media=(128257,)),
    "smolvlm": Wrapper("llama", media=(128257,)),
    "internvl": Wrapper("qwen2", tied=True, media=(151667,)),
    "qwen2_vl": Wrapper("qwen2_vl_text", media=QWEN_MEDIA),
    "qwen2_5_vl": Wrapper("qwen2_5_vl_text", media=QWEN_MEDIA),
    "qwen3_vl": Wrapper("qwen3_vl_text", media=QWEN_MEDIA),
    "qwen3_5": Wrapper("qwen3_5_text", media=QWEN3_5_MEDIA),
    "qwen3_5_moe": Wrapper("qwen3_5_moe_text", media=QWEN3_5_MEDIA),
    "lfm2_vl": Wrapper("lfm2", tied=True, media=(396,)),
    "lfm3_vl": Wrapper("lfm3", tied=True, media=(125030, 125029)),
    **dict.fromkeys(("minicpmv4_6", "minicpmv4_7"), Wrapper("qwen3_5_text")),
    "minicpm_ocr": Wrapper("qwen3_5_text", tied=True),
    # transformers' own forget the scale
    **dict.fromkeys(
        ("aya_vision", "cohere2_vision"), Wrapper("cohere2", tied=True, media=(255036,), fixed={"logit_scale": 1.0})
    ),
    "exaone4_5": Wrapper("exaone4", media=(67, 68)),
    "idefics2": Wrapper("mistral", media=(32001,)),
    "janus": Wrapper("llama", tied=True, media=(100581,)),
    **dict.fromkeys(("deepseek_vl", "deepseek_vl_hybrid"), Wrapper("llama", tied=True, media=(100015,))),
    "llava_next_video": Wrapper("llama", media=(32001, 32000)),
    "video_llava": Wrapper("llama", media=(32000, 32001)),
    "vipllava": Wrapper("llama", media=(32000,)),
    "video_llama_3": Wrapper("qwen2", media=QWEN_MEDIA),
    "ovis2": Wrapper("qwen2", tied=True, media=(151665,)),
    "got_ocr2": Wrapper("qwen2", tied=True, media=(151859,)),
    "lighton_ocr": Wrapper("qwen3", tied=True, media=(151655,)),
    # that hear
    "qwen2_audio": Wrapper("qwen2", media=(151646,)),
    "audioflamingo3": Wrapper("qwen2", media=(151669,)),
    "vibevoice_asr": Wrapper("qwen2", media=(151648,)),
    "qwen3_asr": Wrapper("qwen3", tied=True, media=(151676,)),
    "moss_transcribe_diarize": Wrapper("qwen3", tied=True, media=(151671,)),
    "voxtral": Wrapper("llama"),
    "glmasr": Wrapper("llama", tied=True, media=(59260,)),
    **dict.fromkeys(("granite_speech", "granite_speech_plus"), Wrapper("granite", tied=True, media=(49155,))),
}
MEDIA_KEYS = tuple(f"{kind}_token_{end}" for kind in ("image", "video", "audio") for end in ("id", "index"))
OUTER = ("eos_token_id", "bos_token_id", "pad_token_id", "dtype", "torch_dtype")


def text_part(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's own config.json, out of that of a wrapper; any other file as it is. Raises ConfigError.

    Earlier files keep the text's fields beside the other parts. Positions of three kinds are one kind where there is
    only text, so a multimodal rope is the plain one.
    """
    wrapper = wrapper_of(raw)
    if wrapper is None:
        return raw
    inner = raw.get("text_config")
    if inner is None:
        inner = {key: value for key, value in raw.items() if key not in (*PARTS, "model_type")}
    if not isinstance(inner, Mapping):
        raise ConfigError(f"config.json: text_config is {quote(inner)}; expected an object")
    outer = {key: raw[key] for key in OUTER if raw.get(key) is not None}
    tied = raw.get("tie_word_embeddings", wrapper.tied) or inner.get("tie_word_embeddings", False)
    text = {"model_type": wrapper.text, **inner, **outer, **wrapper.fixed, "tie_word_embeddings": tied}
    return {**text, **{key: plain_rope(text[key]) for key in ("rope_scaling", "rope_parameters") if key in text}}


def wrapper_of(raw: Mapping[str, Any]) -> Wrapper | None:
    """How the text lies in this file; None where it is no known wrapper."""
    name = raw.get("model_type")
    return WRAPPERS.get(name) if isinstance(name, str) else None


def media_token_ids(raw: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids that stand for a piece of an image, a film or a sound."""
    wrapper = wrapper_of(raw)
    if wrapper is None:
        return ()
    named = tuple(raw[key] for key in MEDIA_KEYS if type(raw.get(key)) is int)
    return named or wrapper.media


def plain_rope(rope: Any) -> Any:
    """A rope without what tells positions in an image apart."""
    if not isinstance(rope, Mapping):
        return rope
    plain = {key: value for key, value in rope.items() if key not in MULTIMODAL_ROPE}
    return {key: "default" if value == "mrope" else value for key, value in plain.items()}
