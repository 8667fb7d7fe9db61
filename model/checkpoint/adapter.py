"""A LoRA adapter as PEFT stores it: what its config says, and which tensors it holds. No torch here.

    adapter = Adapter.open(Path("fox-lora"), scale=0.5)

Low-rank adaptation: Hu et al. 2021, arXiv 2106.09685. The files: huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from tokenglass.model.checkpoint.headers import DTYPES, TensorInfo, read_header
from tokenglass.model.config.fields import Fields, first_few, quote, shown_name
from tokenglass.model.errors import CheckpointError, ConfigError
from tokenglass.model.files import MAX_CONFIG, open_regular, parse_json, read_bytes

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
MAX_HEADER = 2**24  # bytes: a hundred thousand tensors
MAX_SCALE = 1e4
NOT_BUILT = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "target_parameters", "layer_replication"),
    *("trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"),
    *("velora_config", "megatron_config", "ensure_weight_tying"),
)
PLAIN_START = (True, False, "gaussian", "eva", "orthogonal")  # of training; others change the base model as well
A_NAME = re.compile(r"[\w.^$|\\-]+")  # a pattern that takes no longer to match than it is long


@dataclass(frozen=True)
class Adapter:
    """The adapter of a folder; what it changes counts `scale` times."""

    folder: Path
    scale: float
    base: str  # what the model that it was trained on is called; "" is not known
    rank: int
    alpha: float
    alphas: tuple[tuple[re.Pattern[str], float], ...]  # of modules by the end of their names; the first that fits
    ranks: frozenset[int]  # that the config names
    stabilised: bool  # rsLoRA
    tensors: tuple[TensorInfo, ...]
    fingerprint: str  # SHA-256 of both files
    notes: tuple[str, ...] = ()

    @staticmethod
    def open(folder: Path, scale: float = 1.0) -> Adapter:
        """Read the config and the header. Raises CheckpointError, ConfigError; what is not built is refused by name."""
        if not (math.isfinite(scale) and abs(scale) <= MAX_SCALE):
            raise CheckpointError(
                f"{folder}: the scale is {scale}; expected a number between -{MAX_SCALE:g} and {MAX_SCALE:g}"
            )
        if not (folder / CONFIG).exists():
            what = f"has no {CONFIG}" if folder.is_dir() else "is a file" if folder.exists() else "no such folder"
            raise CheckpointError(f"{folder}: {what}; --lora takes an adapter's folder, as PEFT saves it")
        content = read_bytes(folder / CONFIG, MAX_CONFIG, CheckpointError)
        f = Fields(parse_json(content, f"{folder / CONFIG}"), f"{folder / CONFIG}")
        refuse_what_is_not_built(f)
        if not (folder / TENSORS).exists() and (folder / PICKLED).exists():
            raise CheckpointError(
                f"{folder}: holds {PICKLED}, which can run code; save it again with PEFT, as safetensors"
            )
        if not (folder / TENSORS).exists():
            raise CheckpointError(f"{folder}: has no {TENSORS}; --lora takes an adapter's folder, as PEFT saves it")
        rank, file = f.integer("r", 8), folder / TENSORS
        ranks = {
            rank,
            *(Fields(f.part("rank_pattern").raw, f.where).integer(key) for key in f.part("rank_pattern").raw),
        }
        alphas = f.part("alpha_pattern")
        tensors = read_header(file, MAX_HEADER).tensors
        if strange := [info for info in tensors if info.dtype not in DTYPES]:
            few = first_few([f"{shown_name(info.name)} is {shown_name(info.dtype)}" for info in strange])
            raise CheckpointError(f"{file}: unsupported dtype: {few}")
        with open_regular(file) as opened:
            digest = hashlib.file_digest(opened, "sha256")
        digest.update(content)
        return Adapter(
            folder=folder,
            scale=scale,
            base=f.text("base_model_name_or_path", ""),
            rank=rank,
            alpha=f.number("lora_alpha", 8.0),
            alphas=tuple((pattern(alphas, key), alphas.number(key)) for key in alphas.raw),
            ranks=frozenset(ranks),
            stabilised=f.boolean("use_rslora"),
            tensors=tensors,
            fingerprint=digest.hexdigest(),
            notes=tuple(f.notes),
        )

    @property
    def name(self) -> str:
        """What it is called in a line: its folder, and the scale where that is not 1."""
        return shown_name(self.folder.resolve().name) + ("" if self.scale == 1 else f"={self.scale:g}")

    @property
    def argument(self) -> str:
        """As --lora takes it."""
        return str(self.folder) + ("" if self.scale == 1 else f"={self.scale:g}")

    def factor(self, module: str, rank: int) -> float:
        """What B A of a module counts: the scale times alpha / rank, or alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023,
        arXiv 2312.03732). Raises CheckpointError for a rank that the config does not name."""
        if rank not in self.ranks or rank < 1:
            known = first_few([str(each) for each in sorted(self.ranks)])
            raise CheckpointError(f"{self.folder}: {shown_name(module)} has rank {rank}, where its config says {known}")
        alpha = next((alpha for known, alpha in self.alphas if known.match(module)), self.alpha)
        return self.scale * alpha / (math.sqrt(rank) if self.stabilised else rank)


def refuse_what_is_not_built(f: Fields) -> None:
    """Raises ConfigError."""
    if (kind := f.raw.get("peft_type")) != "LORA":
        raise ConfigError(f"{f.where}: peft_type is {quote(kind)}; only LORA adapters of PEFT are read")
    for key in NOT_BUILT:
        if f.get(key):
            name = "DoRA" if key == "use_dora" else f"{key} {quote(f.raw[key])}"
            raise ConfigError(
                f"{f.where}: {name} is not supported; merge it into its base model with PEFT, and name that"
            )
    if (start := f.raw.get("init_lora_weights", True)) not in PLAIN_START:
        raise ConfigError(
            f"{f.where}: init_lora_weights {quote(start)} changed the base model, too; save the adapter with "
            "path_initial_model_for_weight_conversion, or merge it with PEFT"
        )


def pattern(f: Fields, key: str) -> re.Pattern[str]:
    """Of a module's name, as PEFT matches it: whole, or behind a dot. Raises ConfigError for what is more than a name,
    which could take for ever to match."""
    try:
        if A_NAME.fullmatch(key):
            return re.compile(rf"(.*\.)?({key})$")
    except re.error:
        pass
    raise ConfigError(f"{f.where}: {quote(key)} is a pattern of another kind than a module's name; write the names out")
