"""What goes with a model beside its weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised_checkpoint import quantize_checkpoint
from tokenglass.model.errors import CheckpointError
from tokenglass.model.loading import quantizer


def test_further_chat_templates_are_copied_and_what_links_out_of_the_folder_is_not(
    saved_checkpoint: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(saved_checkpoint, source)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    output = tmp_path / "int8"
    for _ in quantize_checkpoint(Checkpoint.open(source), output, quantizer("int8", None, 1)):
        pass
    assert (output / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ tools }}"
    secret = tmp_path / "secrets"
    (source / "additional_chat_templates").rename(secret)
    (source / "additional_chat_templates").symlink_to(secret)
    with pytest.raises(CheckpointError, match="a link out of the folder"):
        next(iter(quantize_checkpoint(Checkpoint.open(source), tmp_path / "again", quantizer("int8", None, 1))))
