"""Names become folders in one order, and what is kept can be listed and removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shell import assert_one_line_error, tokenglass

from tokenglass.model.checkpoint.partial import complete_or_nothing
from tokenglass.model.checkpoint.store import (
    Origin,
    bundled_folder,
    hub_cache_folder,
    imports_folder,
    is_name,
    kept_models,
    models_folder,
    read_origin,
    remove,
    resolve,
    write_origin,
)
from tokenglass.model.errors import StoreError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store and an empty Hugging Face cache, in an empty folder."""
    monkeypatch.setenv("TOKENGLASS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def keep(name: str, folder: Path | None = None) -> Path:
    model = (folder or models_folder()) / name
    model.mkdir(parents=True)
    (model / "config.json").write_bytes(b"x" * 100)
    write_origin(model, Origin("somewhere", "MIT", "abc"))
    return model


def cache(name: str, hub: Path) -> Path:
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    return repository / "snapshots" / "c0ffee"


def test_no_name_is_the_bundled_model(home: Path) -> None:
    assert resolve(None) == resolve("tale") == bundled_folder()


def test_a_path_comes_before_a_pulled_model_and_that_before_the_cache(home: Path, tmp_path: Path) -> None:
    cached = cache("org/fox", tmp_path / "hub")
    assert resolve("org/fox") == cached
    pulled = keep("org/fox")
    assert resolve("org/fox") == pulled
    Path("org/fox").mkdir(parents=True)
    assert resolve("org/fox") == Path("org/fox")


def test_a_folder_named_tale_comes_before_the_bundled_model(home: Path) -> None:
    Path("tale").mkdir()
    assert resolve("tale") == Path("tale")


def test_an_unknown_name_says_where_it_was_looked_for(home: Path) -> None:
    with pytest.raises(StoreError, match=r"'fox'.*tokenglass pull fox"):
        resolve("fox")


def test_an_empty_name_is_not_the_current_folder(home: Path) -> None:
    with pytest.raises(StoreError, match="the model's name is empty"):
        resolve("")


@pytest.mark.parametrize("name", ["./fox", "../fox", "/a/fox", "a/b/c", "~/fox", ".hidden", "..", "a/..", "a\nb", ""])
def test_what_cannot_be_a_name_is_a_path(name: str, home: Path) -> None:
    assert not is_name(name)
    assert hub_cache_folder(name) is None


def test_a_cache_that_points_outside_is_not_followed(home: Path, tmp_path: Path) -> None:
    snapshot = cache("org/fox", tmp_path / "hub")
    (snapshot.parent.parent / "refs" / "main").write_text("../../../../work")
    assert hub_cache_folder("org/fox") is None


def test_the_hub_cache_is_where_its_own_variables_say(tmp_path: Path) -> None:
    snapshot = cache("org/fox", tmp_path / "hub")
    assert hub_cache_folder("org/fox", {"HF_HOME": str(tmp_path)}) == snapshot
    assert hub_cache_folder("org/fox", {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": "/other"}) == snapshot
    assert hub_cache_folder("org/bear", {"HF_HOME": str(tmp_path)}) is None


def test_kept_models_are_listed_and_half_ones_are_not(home: Path) -> None:
    keep("fox")
    keep("org/bear")
    keep(".pulling/half")
    (models_folder() / "empty").mkdir()
    assert [(model.name, model.origin.licence) for model in kept_models(models_folder())] == [
        ("fox", "MIT"),
        ("org/bear", "MIT"),
    ]


def test_a_removed_model_is_gone_and_others_stay(home: Path) -> None:
    keep("fox")
    keep("bear")
    keep("hen-12345678", imports_folder())
    assert remove("fox").nbytes > 100
    assert remove("hen-12345678").name == "hen-12345678"
    assert [path.name for path in models_folder().iterdir()] == ["bear"]


@pytest.mark.parametrize(("name", "words"), [("tale", "comes with"), ("fox", "no pulled"), ("../../etc", "no pulled")])
def test_what_cannot_be_removed_is_said(name: str, words: str, home: Path) -> None:
    with pytest.raises(StoreError, match=words):
        remove(name)


def test_a_damaged_origin_is_not_known(home: Path) -> None:
    model = keep("fox")
    for content in ("", "[]", '{"source": 3}', "[" * 100000):
        (model / "tokenglass.json").write_text(content)
        assert read_origin(model) == Origin("")


def test_a_folder_is_complete_or_not_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with complete_or_nothing(tmp_path / "model") as partial:
            (partial / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with complete_or_nothing(tmp_path / "model") as partial:
        (partial / "config.json").write_text("{}")
        assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "config.json"]


# In the shell


def test_models_lists_what_there_is_and_what_can_be_pulled(home: Path) -> None:
    keep("org/fox")
    rows = {row["name"]: row for row in json.loads(tokenglass("models", "--json", **os.environ).stdout)}
    assert rows["tale"]["state"] == "bundled"
    assert rows["org/fox"] == {
        "name": "org/fox",
        "state": "pulled",
        "nbytes": rows["org/fox"]["nbytes"],
        "chat": False,
        "licence": "MIT",
        "where": str(models_folder() / "org/fox"),
        "source": "somewhere",
    }
    assert (rows["smollm2"]["state"], rows["smollm2"]["licence"]) == ("to pull", "Apache-2.0")
    assert (rows["tale"]["chat"], rows["smollm2"]["chat"]) == (False, True)
    table = tokenglass("models", **{**os.environ, "COLUMNS": "80"}).stdout.decode()
    assert [len(line.split()) > 2 for line in table.splitlines() if line.startswith(tuple(rows))] == [True] * len(rows)
    assert "tokenglass pull smollm2" in table


def test_models_rm(home: Path) -> None:
    keep("fox")
    assert tokenglass("models", "rm", "fox", **os.environ).returncode == 0
    assert_one_line_error(tokenglass("models", "rm", "fox", **os.environ), 1, "no pulled model 'fox'")


@pytest.mark.parametrize("command", [("pull",), ("models",), ("models", "rm"), ("import",)])
def test_help_needs_no_heavy_library(command: tuple[str, ...]) -> None:
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'numpy', 'gguf', 'huggingface_hub', 'tokenizers')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        f"sys.argv = ['tokenglass', *{command!r}, '--help']\n"
        "from tokenglass.cli.__main__ import tokenglass\n"
        "tokenglass()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stderr.decode().strip() == "[]"
