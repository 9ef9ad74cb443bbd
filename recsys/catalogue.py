"""The item catalog: reads it, encodes its texts, and adds its cold items to versions."""

import logging
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.config.sections import Items
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.item_texts import read_texts, read_vectors, state_of
from recsys.model.interactions.described import Described
from recsys.model.recommender import OnlineModel
from recsys.model.text.adapter import WEIGHTS, train_adapter
from recsys.model.text.cold_start import ColdItems, Texts
from recsys.model.text.encoder import Catalog, TextEmbeddings, encoder_folder, load_encoder
from recsys.serving import Served
from recsys.serving.content import coded
from recsys.storage import Place, adapter_folder

logger = logging.getLogger(__name__)


class ItemVectors:
    """The catalog of items as it is now, each with a vector: its own, or that of its text.

    It is read again when it has changed, and every text is encoded once.

    Args:
        settings: Uses the sections `items` and `storage`, and `device`; `items.path` is set.
        adapter: Folder of the adapter of the encoder; None: without one.

    Raises:
        ConfigError: the packages of the extra `text` are missing.
        InputError: the catalog or the encoder cannot be read.
    """

    def __init__(self, settings: Settings, adapter: Place | None = None) -> None:
        self._items = settings.items
        self._embeddings = None if settings.items.columns.vector else TextEmbeddings(settings, adapter)
        self._state = state_of(settings.items)
        self._read = self._source()
        self._texts: Texts | None = None
        self._described: Described | None = None
        self._complaint = ""
        # A version is made beside a batch, and both ask.
        self._lock = threading.RLock()

    def texts(self) -> Texts:
        """Ids and unit vectors. New texts are encoded now.

        Raises:
            InputError: the encoder cannot be loaded.
        """
        with self._lock:
            self._look()
            if self._texts is None:
                ids, content = self._read
                self._texts = Texts.of(ids, content if self._embeddings is None else self._embeddings.of(content))
            return self._texts

    def described(self) -> Described:
        """The same with the vectors as models and versions have them."""
        with self._lock:
            texts = self.texts()
            if self._described is None:
                self._described = Described(texts.items, coded(texts.embeddings))
            return self._described

    def _look(self) -> None:
        """Read the catalog again if it has changed.

        It may be in the middle of being replaced, which must not end a stream.
        """
        try:
            state = state_of(self._items)
            if state != self._state:
                self._read, self._state = self._source(), state
                self._texts = self._described = None
        except InputError as error:
            if str(error) != self._complaint:
                logger.warning(
                    "cannot read the catalog now, so new items come from the last one that was read: %s", error
                )
            self._complaint = str(error)

    def _source(self) -> tuple[list[str], Any]:
        """Ids, and texts or unit vectors."""
        if self._embeddings is not None:
            catalog = read_catalog(self._items)
            return catalog.ids, catalog.texts
        ids, vectors = read_vectors(self._items)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return ids, (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def present_catalog(settings: Settings) -> Described | None:
    """The catalog as it is now, for a model that learns from it; None for others.

    Raises:
        ConfigError, InputError: see `ItemVectors`.
    """
    return ItemVectors(settings).described() if settings.uses_contents else None


class NewItems:
    """Adds cold items of the catalog to versions, so that they can be recommended at once.

    The map from vectors to factors is trained on the version's own factors. What a model itself learns of vectors comes
    with the batches, see `tables.contents`: it stays a function of what is logged.

    Args:
        settings: Uses the sections `items` and `storage`, and `device`; without `items.path` versions are unchanged.
        generation: Generation whose adapter is used, if its rebuild trained one.

    Attributes:
        plain: The catalog with vectors as the encoder makes them without an adapter; None without `items.path`.

    Raises:
        ConfigError: the packages of the extra `text` are missing.
        InputError: the catalog or the encoder cannot be read.
    """

    def __init__(self, settings: Settings, generation: int) -> None:
        self._cold, self._with_vectors = ColdItems(settings.items), settings.uses_contents
        self.plain = None if settings.items.path is None else ItemVectors(settings)
        adapter = adapter_folder(settings.storage.root, generation)
        adapted = self.plain is not None and settings.items.columns.vector is None and (adapter / WEIGHTS).exists()
        self._vectors = ItemVectors(settings, adapter) if adapted else self.plain

    def join(self, served: Served) -> Served:
        """A version with the cold items of the catalog added.

        Args:
            served: A version, from `OnlineModel.served`.

        Raises:
            ConfigError: `model.kind` does not support cold items.
        """
        if self.plain is None or self._vectors is None or not len(self._vectors.texts().items):
            return served
        return self._cold.extend(served, self._vectors.texts(), self.plain.described() if self._with_vectors else None)


def fit_adapter(settings: Settings, model: OnlineModel, step: StepId) -> Place:
    """Train the adapter of a generation on the texts and factors of the items with the most users.

    Args:
        settings: Uses the sections `items` and `storage`, `device` and `seed`.
        model: First model of the generation.
        step: Step of the model.

    Returns:
        Folder of the adapter.

    Raises:
        ConfigError: the packages of the extra `text` are missing, or the encoder cannot be adapted.
        InputError: the catalog or the encoder cannot be read, or too few items have a text.
    """
    catalog = read_catalog(settings.items)
    codes = model.items.lookup(catalog.ids)
    users = np.append(model.history.by_item.lists.lengths, -1)[codes]
    order = np.argsort(-users, kind="stable")
    order = order[codes[order] >= 0][: settings.items.adapter.items]
    if len(order) < 2:
        raise InputError(
            f"setting 'items.adapter.enabled': {settings.items.path} has no texts of items with interactions"
        )
    encoder = load_encoder(encoder_folder(settings.items.encoder), None, str(model.als.device))
    factors: npt.NDArray[Any] = model.als.item_factors.cpu().numpy()[codes[order]]
    return train_adapter(encoder, [catalog.texts[row] for row in order.tolist()], factors, settings, step)


def read_catalog(items: Items) -> Catalog:
    """Read the texts of all items.

    Args:
        items: The section `items`, with `path` set.

    Raises:
        InputError: the file is missing, cannot be read, or lacks a column.
    """
    return Catalog.of(*read_texts(items))
