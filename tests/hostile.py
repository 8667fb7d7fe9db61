"""Names and files that a stranger chose to move somebody's terminal, one field of each kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tiny
import tokenizers
from safetensors.torch import load_file, save_file

# A window's title, the clipboard, a colour, a cleared screen, C1 codes, bidi overrides and isolates, a bell
HOSTILE = (
    "ow\x1b]0;ned\x07\x1b]52;c;b3duZWQ=\x07\x1b[5;31;7mX\x9b31m\x9d0;t\x9c\x1b[2J\u202eabc\u2066\u2069\x08\x7f\x00\x85z"
)
NAME = HOSTILE.replace("\x00", "")  # as files can be called
LINES = f"{NAME}\nsecond\rline"
RAISES = f"{{{{ raise_exception({json.dumps(HOSTILE)}) }}}}"
LONG = HOSTILE * 100_000


def sound(folder: Path) -> Path:
    """A small checkpoint that loads."""
    tiny.save_llama(folder)
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def build(folder: Path) -> dict[str, Path]:
    """Checkpoints by what is hostile in them."""
    first = sound(folder / "first")
    paths: dict[str, Path] = {}

    def copy(name: str, called: str = "") -> Path:
        paths[name] = Path(shutil.copytree(first, folder / (called or name)))
        return paths[name]

    copy("folder name", LINES)
    copy("tensor name")
    edit_weights(paths["tensor name"], lambda tensors: tensors.update({HOSTILE: tensors.pop("model.norm.weight")}))
    copy("long tensor name")
    edit_weights(
        paths["long tensor name"], lambda tensors: tensors.update({LONG[: 10**6]: tensors["model.norm.weight"].clone()})
    )
    for name, changes in {
        "model type": {"model_type": HOSTILE},
        "activation": {"hidden_act": LONG},
        "a key's value": {"num_hidden_layers": [HOSTILE] * 100_000},
        "rope type": {"rope_parameters": {"rope_type": HOSTILE, "rope_theta": 1.0}},
        "rope key": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1.0, HOSTILE: 1}},
        "dtype": {"dtype": HOSTILE, "torch_dtype": HOSTILE},
    }.items():
        tiny.edit_json(copy(name) / "config.json", **changes)
    (copy("broken config") / "config.json").write_text(f'{{"{LONG}": ')
    (copy("generation config") / "generation_config.json").write_text(
        json.dumps({HOSTILE: HOSTILE, "penalty_alpha": LONG})
    )
    copy("template")
    (paths["template"] / "chat_template.jinja").write_text(RAISES)
    copy("template's syntax")
    (paths["template's syntax"] / "chat_template.jinja").write_text("{% " + HOSTILE + " %}")
    copy("index")
    (paths["index"] / "model.safetensors").unlink()
    (paths["index"] / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {HOSTILE: HOSTILE + ".safetensors"}})
    )
    copy("token")
    add_tokens(paths["token"])
    copy("tokenizer")
    (paths["tokenizer"] / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": HOSTILE}}))
    return paths


def add_tokens(folder: Path) -> None:
    """Hostile pieces instead of ordinary ones, which a run is sure to say."""
    path = folder / "tokenizer.json"
    content: dict[str, Any] = json.loads(path.read_text())
    taken = {token["id"] for token in content["added_tokens"]}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for name, token_id in list(content["model"]["vocab"].items()):
        if token_id % 2 and token_id not in taken and len(name) > 1:
            content["added_tokens"].append({"id": token_id, "content": f"{HOSTILE}{token_id}", **flags})
    path.write_text(json.dumps(content))
    tokenizers.Tokenizer.from_file(str(path))


def edit_weights(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
