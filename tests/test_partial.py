"""Folders that take long to make are there whole or not at all, also when several processes make them at once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, tokenglass
from tiny_gguf import write_gguf

from tokenglass.model.checkpoint.partial import complete_or_nothing, lock_folder
from tokenglass.model.checkpoint.quantised_checkpoint import small_files
from tokenglass.model.errors import CheckpointError, MadeMeanwhile, StoreError
from tokenglass.model.loading import load_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs locks and links")
FILL = """
import sys, time
from pathlib import Path
from tokenglass.model.checkpoint.partial import complete_or_nothing
with complete_or_nothing(Path(sys.argv[1]), "job") as partial:
    (partial / "half").write_text("x")
    print("half", flush=True)
    time.sleep(60)
"""


def killed_half_way(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FILL, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("job", ["job", "another"])
def test_what_a_killed_process_left_is_cleared_by_the_next(job: str, tmp_path: Path) -> None:
    killed_half_way(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with complete_or_nothing(tmp_path / "model", job) as partial:
        assert list(partial.iterdir()) == []
        (partial / "whole").write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/whole"]


def test_folders_that_others_are_filling_are_left_alone(tmp_path: Path) -> None:
    with complete_or_nothing(tmp_path / "a") as first:
        (first / "mine").write_text("x")
        with complete_or_nothing(tmp_path / "b") as second:
            (second / "mine").write_text("x")
        assert (first / "mine").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_the_second_of_the_same_work_waits_and_uses_the_first(tmp_path: Path) -> None:
    begun, outcome = threading.Event(), []

    def second() -> None:
        begun.wait()
        try:
            with complete_or_nothing(tmp_path / "model", "job"):
                outcome.append("worked")
        except StoreError as error:
            outcome.append(type(error))

    thread = threading.Thread(target=second)
    thread.start()
    with complete_or_nothing(tmp_path / "model", "job") as partial:
        begun.set()
        time.sleep(0.3)
        assert outcome == []
        (partial / "whole").write_text("x")
    thread.join()
    assert outcome == [MadeMeanwhile]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_second_works_where_the_first_failed(tmp_path: Path) -> None:
    begun = threading.Event()

    def second() -> None:
        begun.wait()
        with complete_or_nothing(tmp_path / "model", "job") as partial:
            (partial / "second").write_text("x")

    thread = threading.Thread(target=second)
    thread.start()

    def first() -> None:
        with complete_or_nothing(tmp_path / "model", "job"):
            begun.set()
            time.sleep(0.3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first()
    thread.join()
    assert (tmp_path / "model" / "second").exists()


def test_another_work_of_the_same_name_does_not_take_its_place(tmp_path: Path) -> None:
    with complete_or_nothing(tmp_path / "model", "one") as partial:
        (partial / "one").write_text("x")

        def other() -> None:
            with complete_or_nothing(tmp_path / "model", "two") as partial:
                (partial / "two").write_text("x")

        other()
        with pytest.raises(StoreError, match="already there"):
            raise_at_the_end(partial, tmp_path / "model")
        shutil.rmtree(tmp_path / "model")


def raise_at_the_end(partial: Path, folder: Path) -> None:
    from tokenglass.model.checkpoint.partial import refuse_existing  # noqa: PLC0415

    assert partial.exists()
    refuse_existing(folder)


def test_a_lock_is_of_the_folder_that_is_there(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with lock_folder(tmp_path / "folder") as waited:
            order.append(("second", waited, (tmp_path / "folder").exists()))

    with lock_folder(tmp_path / "folder") as waited:
        order.append(("first", waited, True))
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        (tmp_path / "folder").rename(tmp_path / "elsewhere")
    thread.join()
    assert order == [("first", False, True), ("second", True, True)]


# In the shell


@pytest.mark.parametrize("command", ["import", "quantize"])
def test_two_at_once_both_end_well(command: str, tmp_path: Path) -> None:
    original = tiny.save_llama(tmp_path / "original", hidden_size=64, intermediate_size=96, vocab_size=432)
    tiny.byte_level_tokenizer().save(str(original / "tokenizer.json"))
    source = write_gguf(tmp_path / "a.gguf", original) if command == "import" else original
    arguments = [SCRIPTS / "tokenglass", command, source, tmp_path / "made"]
    both = [subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) for _ in "12"]
    ends = [(process.communicate(), process.returncode) for process in both]
    errors = b"".join(stderr for (_, stderr), _ in ends)
    assert all(code == 0 or b"already there" in stderr for (_, stderr), code in ends), ends
    assert any(code == 0 for _, code in ends), errors
    load_model(tmp_path / "made")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_that_links_out_of_its_folder_is_not_copied(saved_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved_checkpoint, tmp_path / "model")
    (tmp_path / "secret").write_text("secret")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    done = tokenglass("quantize", str(folder), str(tmp_path / "made"), "--no-measure")
    assert_one_line_error(done, 1, "README.md", "link")
    assert not (tmp_path / "made").exists()
    (folder / "README.md").unlink()
    (folder / "id_rsa").symlink_to(tmp_path / "secret")
    done = tokenglass("quantize", str(folder), str(tmp_path / "made"), "--no-measure")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "made" / "id_rsa").exists(), "only files of known names belong to a model"


def test_files_of_the_cache_are_links_into_its_store(saved_checkpoint: Path, tmp_path: Path) -> None:
    """As huggingface_hub lays them out: snapshots/COMMIT/NAME -> ../../blobs/HASH."""
    snapshot, store = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    store.mkdir()
    names = [path.name for path in saved_checkpoint.iterdir()]
    for number, name in enumerate(names):
        shutil.copy(saved_checkpoint / name, store / str(number))
        (snapshot / name).symlink_to(Path("../../blobs") / str(number))
    assert set(small_files(snapshot)) == {*names} - {"model.safetensors"}
    (tmp_path / "secret").write_text("secret")
    (snapshot / "README.md").symlink_to("../../secret")
    with pytest.raises(CheckpointError, match="README"):
        small_files(snapshot)
