"""The families that are built: how each one's config.json is read. A family that only renames another is one line here.

No torch here. What a file leaves out is filled in before (see model/config/family_defaults.py).
"""

from __future__ import annotations

from collections.abc import Callable

from tokenglass.model.config.delta_kin import read_qwen3_5, read_qwen3_5_moe, read_qwen3_next
from tokenglass.model.config.experts_kin import (
    read_gpt_oss,
    read_granitemoe,
    read_mixtral,
    read_olmoe,
    read_qwen2_moe,
    read_qwen3_moe,
)
from tokenglass.model.config.fields import Fields
from tokenglass.model.config.gemma_kin import read_gemma, read_gemma2, read_gemma3, read_gemma4, read_vaultgemma
from tokenglass.model.config.layer_norm_kin import (
    read_cohere,
    read_cohere2,
    read_gpt2,
    read_gpt_neox,
    read_jais2,
    read_olmo,
    read_phi,
    read_stablelm,
    read_starcoder2,
)
from tokenglass.model.config.lfm_kin import read_lfm2, read_lfm2_moe, read_lfm3
from tokenglass.model.config.llama_kin import (
    read_apertus,
    read_arcee,
    read_ernie4_5,
    read_exaone,
    read_glm,
    read_glm4,
    read_granite,
    read_helium,
    read_hunyuan,
    read_internlm3,
    read_iquestcoder,
    read_llama,
    read_ministral,
    read_ministral3,
    read_mistral,
    read_nanochat,
    read_phi3,
    read_qwen2,
    read_qwen3,
    read_seed_oss,
    read_smollm3,
)
from tokenglass.model.config.olmo_kin import read_exaone4, read_olmo2, read_olmo3
from tokenglass.model.config.sizes import Switches

FAMILIES: dict[str, Callable[[Fields], Switches]] = {
    "llama": read_llama,
    "mistral": read_mistral,
    "ministral": read_ministral,
    "ministral3": read_ministral3,
    "internlm3": read_internlm3,
    "iquestcoder": read_iquestcoder,
    "helium": read_helium,
    "qwen2": read_qwen2,
    "qwen2_vl_text": read_qwen2,
    "qwen2_5_vl_text": read_qwen2,
    "qwen3": read_qwen3,
    "qwen3_vl_text": read_qwen3,
    "gemma": read_gemma,
    "gemma2": read_gemma2,
    "vaultgemma": read_vaultgemma,
    "gemma3_text": read_gemma3,
    "gemma4_text": read_gemma4,
    "phi": read_phi,
    "phi3": read_phi3,
    "olmo": read_olmo,
    "olmo2": read_olmo2,
    "olmo3": read_olmo3,
    "smollm3": read_smollm3,
    "granite": read_granite,
    "cohere": read_cohere,
    "cohere2": read_cohere2,
    "glm": read_glm,
    "glm4": read_glm4,
    "exaone": read_exaone,
    "exaone4": read_exaone4,
    "hunyuan_v1_dense": read_hunyuan,
    "ernie4_5": read_ernie4_5,
    "seed_oss": read_seed_oss,
    "apertus": read_apertus,
    "arcee": read_arcee,
    "nanochat": read_nanochat,
    "starcoder2": read_starcoder2,
    "stablelm": read_stablelm,
    "jais2": read_jais2,
    "qwen3_5_text": read_qwen3_5,
    "qwen3_5_moe_text": read_qwen3_5_moe,
    "qwen3_next": read_qwen3_next,
    "lfm2": read_lfm2,
    "lfm2_moe": read_lfm2_moe,
    "lfm3": read_lfm3,
    "mixtral": read_mixtral,
    "qwen2_moe": read_qwen2_moe,
    "qwen3_moe": read_qwen3_moe,
    "olmoe": read_olmoe,
    "granitemoe": read_granitemoe,
    "gpt_oss": read_gpt_oss,
    "gpt2": read_gpt2,
    "gpt_neox": read_gpt_neox,
}
