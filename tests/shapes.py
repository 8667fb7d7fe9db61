"""Popular checkpoints rebuilt small from memory of their files: config.json, tokenizer, template, recommendations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import shapes_templates as templates
import tokenizers
from shapes_configs import LLAMA3_ROPE, Json, gemma, gpt2, llama, mistral, neox, phi3, qwen
from shapes_tokenizers import LLAMA3_SPLIT, NEMO_SPLIT, QWEN_SPLIT, byte_level, sentencepiece
from tokenizers import AddedToken


@dataclass(frozen=True, slots=True)
class Shape:
    """One checkpoint's files. `special` and `plain` tokens are added to the tokenizer, with `strips` to their right."""

    config: Json
    build: Callable[[], tokenizers.Tokenizer]
    special: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    settings: Json = field(default_factory=dict)
    generation: Json | None = None
    template: str | None = None
    strips: bool = False
    system: bool = True  # the template takes a system message
    tools: bool = False  # and what tools say
    more_tokens: int = 0  # that the embedding has no rows for

    def tokenizer(self) -> tokenizers.Tokenizer:
        built = self.build()
        built.add_special_tokens(
            [AddedToken(name, rstrip=self.strips, normalized=False, special=True) for name in self.special]
        )
        built.add_tokens([AddedToken(name, normalized=False) for name in self.plain])
        return built


HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>")
CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TOOLS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>")
THINK = ("<tool_response>", "</tool_response>", "<think>", "</think>")
TURNS = ("<start_of_turn>", "<end_of_turn>")
R1 = (
    *(
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
    ),
    *(
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁outputs▁begin｜>",
        "<｜tool▁output▁begin｜>",
    ),
    "<｜tool▁output▁end｜>",
)
PHI_ROLES = ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
SP: Json = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
LLAMA_SP = {**SP, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
FAST: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True}
LLAMA3 = {**FAST, "bos_token": "<|begin_of_text|>"}
QWEN = {
    "tokenizer_class": "Qwen2Tokenizer",
    "add_prefix_space": False,
    "bos_token": None,
    "errors": "replace",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "split_special_tokens": False,
    "clean_up_tokenization_spaces": False,
    "add_bos_token": False,
    "model_max_length": 131072,
}
GPT2: Json = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
ENDS = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
GEMMA = {
    "tokenizer_class": "GemmaTokenizer",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
    "spaces_between_special_tokens": False,
    "clean_up_tokenization_spaces": False,
    "sp_model_kwargs": {},
    "use_default_system_prompt": False,
}


def llama3() -> tokenizers.Tokenizer:
    return byte_level("<|begin_of_text|>", LLAMA3_SPLIT, ignore_merges=True)


def qwen_bytes() -> tokenizers.Tokenizer:
    return byte_level(split=QWEN_SPLIT, nfc=True)


def smol_bytes() -> tokenizers.Tokenizer:
    return byte_level(digits=True, starts=CHAT)


def gemma_pieces() -> tokenizers.Tokenizer:
    return sentencepiece("gemma", ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))


def metaspace() -> tokenizers.Tokenizer:
    return sentencepiece("metaspace")


def neox_bytes() -> tokenizers.Tokenizer:
    return byte_level(nfc=True, starts=("<|endoftext|>", "<|padding|>"))


def r1_bytes() -> tokenizers.Tokenizer:
    return byte_level("<｜begin▁of▁sentence｜>", LLAMA3_SPLIT)


def r1_qwen_bytes() -> tokenizers.Tokenizer:
    return byte_level("<｜begin▁of▁sentence｜>", QWEN_SPLIT, nfc=True)


def dolma() -> tokenizers.Tokenizer:
    return byte_level(split=LLAMA3_SPLIT)


SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
SHAPES: dict[str, Shape] = {
    "Llama-2-7b-chat": Shape(
        llama(rope_theta=10000.0),
        sentencepiece,
        settings=LLAMA_SP | {"legacy": False},
        generation=SAMPLED,
        template=templates.LLAMA2,
    ),
    "TinyLlama-1.1B-Chat": Shape(
        llama(),
        sentencepiece,
        settings=LLAMA_SP | {"legacy": False, "pad_token": "</s>"},
        generation={"max_length": 2048},
        template=templates.ZEPHYR,
    ),
    "vicuna-7b-v1.5": Shape(
        llama(pad_token_id=0),
        sentencepiece,
        settings=LLAMA_SP | {"legacy": False, "pad_token": "<unk>"},
        generation=SAMPLED,
        template=templates.VICUNA,
    ),
    "Meta-Llama-3-8B-Instruct": Shape(
        llama(rope_theta=500000.0),
        llama3,
        ("<|end_of_text|>", *HEADERS),
        settings=LLAMA3 | {"eos_token": "<|eot_id|>"},
        generation={**SAMPLED, "eos_token_id": ["<|end_of_text|>", "<|eot_id|>"]},
        template=templates.LLAMA3,
    ),
    "Llama-3.1-8B-Instruct": Shape(
        llama(rope_theta=500000.0, rope_scaling={**LLAMA3_ROPE, "factor": 8.0}, attention_bias=False, mlp_bias=False),
        llama3,
        ("<|end_of_text|>", *HEADERS),
        settings=LLAMA3 | {"eos_token": "<|eot_id|>"},
        generation=SAMPLED,
        template=templates.LLAMA31,
        tools=True,
    ),
    "Llama-3.2-1B-Instruct": Shape(
        llama(rope_theta=500000.0, rope_scaling=LLAMA3_ROPE, head_dim=8, tie_word_embeddings=True),
        llama3,
        ("<|end_of_text|>", *HEADERS),
        settings=LLAMA3 | {"eos_token": "<|eot_id|>"},
        generation={**SAMPLED, "eos_token_id": ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]},
        template=templates.LLAMA31,
        tools=True,
    ),
    "Mistral-7B-Instruct-v0.1": Shape(
        mistral(), sentencepiece, settings=LLAMA_SP | {"legacy": True}, template=templates.MISTRAL, system=False
    ),
    "Mistral-7B-Instruct-v0.3": Shape(
        mistral(sliding_window=None, rope_theta=1e6),
        metaspace,
        (
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
        settings=LLAMA_SP | {"legacy": False},
        template=templates.MISTRAL3,
        tools=True,
    ),
    "zephyr-7b-beta": Shape(
        mistral(pad_token_id=2),
        sentencepiece,
        settings=LLAMA_SP | {"legacy": True, "pad_token": "</s>", "truncation_side": "left"},
        template=templates.ZEPHYR,
    ),
    "Mistral-Nemo-Instruct": Shape(
        mistral(sliding_window=None, head_dim=16, rope_theta=1e6),
        lambda: byte_level("<s>", NEMO_SPLIT, starts=("<unk>", "<s>", "</s>")),
        ("<unk>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        settings={**FAST, **SP},
        template=templates.MISTRAL3,
        tools=True,
    ),
    "dolphin-2.6-mistral": Shape(
        mistral(),
        sentencepiece,
        ("<|im_end|>", "<|im_start|>"),
        settings=LLAMA_SP | {"legacy": True, "eos_token": "<|im_end|>"},
        template=templates.CHATML,
    ),
    "OpenHermes-2.5-Mistral": Shape(
        mistral(),
        sentencepiece,
        ("<|im_end|>", "<|im_start|>"),
        settings=LLAMA_SP | {"legacy": True, "eos_token": "<|im_end|>"},
        template=templates.CHATML,
    ),
    "Hermes-3-Llama-3.2": Shape(
        llama(rope_scaling=LLAMA3_ROPE, rope_theta=5e5),
        llama3,
        ("<|im_end|>", "<|im_start|>"),
        settings=LLAMA3 | {"eos_token": "<|im_end|>"},
        generation={**SAMPLED, "repetition_penalty": 1.1},
        template=templates.CHATML,
    ),
    "Qwen2-0.5B-Instruct": Shape(
        qwen("qwen2", tie_word_embeddings=True),
        qwen_bytes,
        CHAT,
        settings=QWEN,
        template=templates.QWEN25,
        tools=True,
        generation={
            "do_sample": True,
            "repetition_penalty": 1.1,
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 20,
            "eos_token_id": ["<|im_end|>", "<|endoftext|>"],
        },
    ),
    "Qwen2.5-7B-Instruct": Shape(
        qwen("qwen2"),
        qwen_bytes,
        CHAT,
        QWEN_TOOLS,
        QWEN,
        template=templates.QWEN25,
        tools=True,
        generation={
            "do_sample": True,
            "repetition_penalty": 1.05,
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 20,
            "eos_token_id": ["<|im_end|>", "<|endoftext|>"],
        },
    ),
    "Qwen3-0.6B": Shape(
        qwen("qwen3", head_dim=16, attention_bias=False, sliding_window=None, tie_word_embeddings=True),
        qwen_bytes,
        CHAT,
        (*QWEN_TOOLS, *THINK),
        QWEN,
        template=templates.QWEN3,
        tools=True,
        generation={
            "do_sample": True,
            "temperature": 0.6,
            "top_k": 20,
            "top_p": 0.95,
            "eos_token_id": ["<|im_end|>", "<|endoftext|>"],
        },
    ),
    "Qwen3-Embedding-0.6B": Shape(
        qwen("qwen3", head_dim=16, tie_word_embeddings=True),
        qwen_bytes,
        CHAT,
        settings=QWEN | {"eos_token": "<|endoftext|>"},
    ),
    "DeepSeek-R1-0528-Qwen3-8B": Shape(
        qwen(
            "qwen3",
            head_dim=16,
            rope_scaling={
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 512,
                "attn_factor": 0.8782488562869419,
            },
        ),
        r1_qwen_bytes,
        R1,
        ("<think>", "</think>"),
        settings={
            **FAST,
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
            "pad_token": "<｜end▁of▁sentence｜>",
        },
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.95},
        template=templates.DEEPSEEK_R1,
        tools=True,
    ),
    "DeepSeek-R1-Distill-Qwen-1.5B": Shape(
        qwen("qwen2", use_mrope=False),
        r1_qwen_bytes,
        R1,
        ("<think>", "</think>"),
        settings={
            **FAST,
            "tokenizer_class": "LlamaTokenizerFast",
            "legacy": True,
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
        },
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.95},
        template=templates.DEEPSEEK_R1,
        tools=True,
    ),
    "DeepSeek-R1-Distill-Llama-8B": Shape(
        llama(rope_scaling={**LLAMA3_ROPE, "factor": 8.0}, rope_theta=5e5),
        r1_bytes,
        R1,
        ("<think>", "</think>"),
        settings={
            **FAST,
            "tokenizer_class": "LlamaTokenizerFast",
            "legacy": True,
            "add_bos_token": True,
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
        },
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.95},
        template=templates.DEEPSEEK_R1,
        tools=True,
    ),
    "deepseek-coder-1.3b": Shape(
        llama(rope_scaling={"factor": 4.0, "type": "linear"}, rope_theta=100000),
        r1_bytes,
        R1[:2],
        ("<|EOT|>",),
        settings={
            **FAST,
            "tokenizer_class": "LlamaTokenizerFast",
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<|EOT|>",
            "add_bos_token": True,
        },
        generation={"eos_token_id": "<|EOT|>"},
        template=templates.DEEPSEEK_CODER,
    ),
    "gemma-2-2b-it": Shape(
        gemma(2), gemma_pieces, TURNS, ("\n\n", "  ", "    ", "<b>"), GEMMA, template=templates.GEMMA2, system=False
    ),
    "gemma-3-270m-it": Shape(
        gemma(3, layer_types=["sliding_attention", "full_attention"]),
        gemma_pieces,
        TURNS,
        ("\n\n", "  ", "    ", "<b>"),
        GEMMA,
        generation={"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": ["<eos>", "<end_of_turn>"]},
        template=templates.GEMMA3,
    ),
    "gemma-3-1b-it": Shape(
        gemma(3, eos_token_id=["<eos>", "<end_of_turn>"]),
        gemma_pieces,
        TURNS,
        ("\n\n", "  ", "    ", "<b>", "<image_soft_token>"),
        GEMMA,
        generation={"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": ["<eos>", "<end_of_turn>"]},
        template=templates.GEMMA3,
        more_tokens=1,
    ),
    "Phi-3-mini-4k": Shape(
        phi3(),
        sentencepiece,
        ("<|endoftext|>", *PHI_ROLES),
        settings=LLAMA_SP
        | {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "legacy": False, "padding_side": "left"},
        generation={"eos_token_id": ["<|endoftext|>", "<|end|>", "<|assistant|>"]},
        template=templates.PHI3,
        strips=True,
    ),
    "Phi-3.5-mini": Shape(
        phi3(
            original_max_position_embeddings=64,
            rope_scaling={
                "type": "longrope",
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [1.5, 2.0, 4.0, 8.0],
            },
        ),
        sentencepiece,
        ("<|endoftext|>", *PHI_ROLES),
        settings=LLAMA_SP | {"eos_token": "<|endoftext|>", "legacy": False},
        generation={"eos_token_id": ["<|end|>", "<|assistant|>", "<|endoftext|>"]},
        template=templates.PHI3,
        strips=True,
    ),
    "Phi-4-mini": Shape(
        phi3(
            partial_rotary_factor=0.75,
            original_max_position_embeddings=64,
            tie_word_embeddings=True,
            rope_scaling={"type": "longrope", "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 4.0]},
        ),
        dolma,
        ("<|endoftext|>", *PHI_ROLES),
        settings={**GPT2, **ENDS},
        generation={"eos_token_id": ["<|end|>", "<|endoftext|>"]},
        template=templates.PHI4_MINI,
    ),
    "OLMo-2-1B-Instruct": Shape(
        llama(architectures=["Olmo2ForCausalLM"], model_type="olmo2", rope_theta=5e5),
        dolma,
        ("<|endoftext|>", "<|pad|>"),
        ("    ", "|||EMAIL|||"),
        settings={**GPT2, **ENDS, "pad_token": "<|pad|>"},
        template=templates.OLMO2,
    ),
    "SmolLM-135M": Shape(llama(tie_word_embeddings=True), smol_bytes, CHAT, settings={**GPT2, **ENDS}),
    "SmolLM2-135M-Instruct": Shape(
        llama(tie_word_embeddings=True, rope_interleaved=False, is_llama_config=True, rope_theta=100000),
        smol_bytes,
        CHAT,
        settings={**GPT2, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        template=templates.SMOLLM2,
    ),
    "SmolLM3-3B": Shape(
        llama(
            architectures=["SmolLM3ForCausalLM"],
            model_type="smollm3",
            pad_token_id="<|eom_id|>",
            no_rope_layers=[1, 0],
            no_rope_layer_interval=2,
            rope_theta=5e6,
            tie_word_embeddings=True,
        ),
        llama3,
        (*HEADERS, "<|im_start|>", "<|im_end|>"),
        THINK,
        settings={**FAST, "bos_token": None, "eos_token": "<|im_end|>"},
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.95},
        template=templates.SMOLLM3,
        tools=True,
    ),
    "pythia-70m": Shape(
        neox(),
        neox_bytes,
        ("<|endoftext|>", "<|padding|>"),
        ("  ", "    "),
        {"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": False, **ENDS},
    ),
    "stablecode-alpha": Shape(
        neox(use_parallel_residual=True, rotary_pct=0.25),
        neox_bytes,
        ("<|endoftext|>", "<|padding|>"),
        ("    ", "\n\n"),
        {"tokenizer_class": "GPTNeoXTokenizer", **ENDS},
        {"eos_token_id": "<|endoftext|>"},
    ),
    "gpt2": Shape(gpt2(), byte_level, ("<|endoftext|>",), settings={"model_max_length": 1024}),
    "DialoGPT-small": Shape(
        gpt2(),
        byte_level,
        ("<|endoftext|>",),
        settings={"model_max_length": 1024},
        template=templates.DIALOGPT,
    ),
    "codegen-like": Shape(
        gpt2(tie_word_embeddings=False, eos_token_id=2),
        byte_level,
        ("<|endoftext|>",),
        ("  ", "    "),
        {**GPT2, **ENDS, "tokenizer_class": "CodeGenTokenizer"},
        {"eos_token_id": "<|endoftext|>"},
    ),
    "Yi-6B-Chat": Shape(
        llama(rope_theta=5e6, pad_token_id=0),
        lambda: sentencepiece("llama", ("<unk>", "<s>", "</s>")),
        ("<|im_start|>", "<|im_end|>", "<|im_sep|>"),
        settings=LLAMA_SP | {"add_bos_token": False, "eos_token": "<|im_end|>", "legacy": True},
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.8, "eos_token_id": "<|im_end|>"},
        template=templates.CHATML,
    ),
    "Nemotron-like": Shape(
        llama(rope_theta=10000.0, head_dim=8),
        lambda: byte_level("<s>", NEMO_SPLIT, starts=("<unk>", "<s>", "</s>")),
        ("<unk>", "</s>", "<extra_id_0>", "<extra_id_1>"),
        settings={**FAST, **SP},
        template=templates.NEMOTRON,
    ),
    "a chatml fine-tune with a pad token": Shape(
        llama(rope_theta=10000.0),
        sentencepiece,
        ("<|im_start|>", "<|im_end|>"),
        ("[PAD]",),
        LLAMA_SP | {"legacy": False, "eos_token": "<|im_end|>", "pad_token": "[PAD]"},
        template=templates.CHATML,
        more_tokens=1,
    ),
    "a fine-tune of Llama 3 with a pad token": Shape(
        llama(rope_theta=5e5, rope_scaling=LLAMA3_ROPE),
        llama3,
        ("<|end_of_text|>", *HEADERS, "<|finetune_right_pad_id|>"),
        settings=LLAMA3 | {"eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"},
        generation={**SAMPLED, "eos_token_id": "<|eot_id|>"},
        template=templates.LLAMA3,
        more_tokens=1,
    ),
}
