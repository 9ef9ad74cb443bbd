"""Texts of items: how they are put together, encoded once, and refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recsys.config import Settings
from recsys.errors import ConfigError, InputError
from recsys.model.text import encoder as item_text
from recsys.model.text.encoder import Catalog, TextEmbeddings, encode, encoder_folder, load_encoder

TEXTS = ["A horror film. Ghosts", "Socks, wool, blue", "A film of horror, with ghosts"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def make_settings(encoder: Path, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"storage": {"root": str(tmp_path)}, "items": {"encoder": str(encoder)}, "device": "cpu"}
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the encoder is really asked for."""
    asked: list[str] = []

    def watched(encoder, texts):
        asked.extend(texts)
        return encode(encoder, texts)

    monkeypatch.setattr(item_text, "encode", watched)
    return asked


@pytest.mark.parametrize(
    ("title", "text", "whole"),
    [
        ("Jaws", "A shark", "Jaws. A shark"),
        ("Jaws", None, "Jaws"),
        (None, " A shark ", "A shark"),
        ("Jaws", "JAWS (1975). Horror", "JAWS (1975). Horror"),
        ("Jaws", "  ", "Jaws"),
    ],
)
def test_title_and_text_are_joined(title: str | None, text: str | None, whole: str) -> None:
    assert Catalog.of(["a"], [title], [text]) == Catalog(["a"], [whole])


def test_items_that_say_nothing_are_left_out_and_of_equal_ids_the_last_counts() -> None:
    catalog = Catalog.of(["a", "b", "a", "c"], ["x", "", "y", None], [None, " ", None, "z"])
    assert catalog == Catalog(["a", "c"], ["y", "z"])
    assert len(catalog) == 2


def test_like_texts_have_like_embeddings(make_settings: Settings) -> None:
    embeddings = TextEmbeddings(make_settings).of(TEXTS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    likeness = embeddings @ embeddings.T
    assert likeness[0, 2] > 0.7 > 0.3 > likeness[0, 1]


def test_a_text_is_encoded_once(make_settings: Settings, encoded: list[str]) -> None:
    store = TextEmbeddings(make_settings)
    first = store.of([TEXTS[1], TEXTS[0], TEXTS[1]])
    assert encoded == [TEXTS[1], TEXTS[0]]
    assert np.array_equal(first[0], first[2])
    again = TextEmbeddings(make_settings)
    grown = again.of(TEXTS)
    assert encoded == [TEXTS[1], TEXTS[0], TEXTS[2]]
    assert np.array_equal(grown[[1, 0]], first[:2])
    assert np.array_equal(TextEmbeddings(make_settings).of(TEXTS[::-1]), grown[::-1])
    assert np.array_equal(store.of(TEXTS[:2]), grown[:2])
    assert len(encoded) == 3
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


def test_many_texts_at_once_are_the_same_as_few(make_settings: Settings, encoder: Path) -> None:
    texts = [f"item number {number}" for number in range(item_text._TEXTS_AT_ONCE + 3)]
    embeddings = encode(load_encoder(encoder, None, "cpu"), texts)
    assert embeddings.shape == (len(texts), 384)
    np.testing.assert_allclose(TextEmbeddings(make_settings).of(texts[-3:]), embeddings[-3:], atol=1e-5)


def test_nothing_to_encode_loads_no_encoder(make_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    TextEmbeddings(make_settings).of(TEXTS)
    monkeypatch.setattr(item_text, "load_encoder", lambda *_: pytest.fail("loaded"))
    assert TextEmbeddings(make_settings).of(TEXTS[1:]).shape == (2, 384)


@pytest.mark.parametrize("content", [b"", b"not a table", b"\xff" * 64])
def test_a_damaged_file_is_made_again(
    make_settings: Settings, encoded: list[str], content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = TextEmbeddings(make_settings)
    expected = store.of(TEXTS)
    store.path.write_bytes(content)
    assert np.array_equal(TextEmbeddings(make_settings).of(TEXTS), expected)
    assert encoded == TEXTS * 2
    assert str(store.path) in caplog.text
    assert np.array_equal(TextEmbeddings(make_settings).of(TEXTS), expected)
    assert len(encoded) == 6


def test_another_encoder_has_another_file(make_settings: Settings, encoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "encoder"
    shutil.copytree(encoder, copy)
    same = make_settings.model_copy(update={"items": make_settings.items.model_copy(update={"encoder": str(copy)})})
    assert TextEmbeddings(same).path == TextEmbeddings(make_settings).path
    config = json.loads((copy / "sentence_bert_config.json").read_text("utf-8"))
    (copy / "sentence_bert_config.json").write_text(json.dumps(config | {"max_seq_length": 8}), "utf-8")
    assert TextEmbeddings(same).path != TextEmbeddings(make_settings).path


def test_weights_that_can_carry_code_are_refused(encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "encoder", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "encoder" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="safetensors"):
        encoder_folder(str(tmp_path / "encoder"))


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sentence encoder"):
        encoder_folder(str(tmp_path))
    (tmp_path / "modules.json").write_text("[]", "utf-8")
    (tmp_path / "config.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="cannot load the encoder"):
        load_encoder(encoder_folder(str(tmp_path)), None, "cpu").encode(["a"])


def test_an_encoder_that_is_nowhere_is_refused(encoder: Path) -> None:
    with pytest.raises(InputError, match="cannot find the encoder nobody/nothing"):
        encoder_folder("nobody/nothing")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, encoder: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(ConfigError, match="needs peft"):
        load_encoder(encoder, None, "cpu")
