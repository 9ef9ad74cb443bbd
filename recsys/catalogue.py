"""The item catalog: reads it, embeds its texts, and adds its cold items to versions."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.config.sections import Items
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.item_texts import read_texts
from recsys.model.recommender import OnlineModel
from recsys.model.text.adapter import WEIGHTS, train_adapter
from recsys.model.text.cold_start import ColdItems, Texts
from recsys.model.text.encoder import Catalog, TextEmbeddings, encoder_folder, load_encoder
from recsys.serving import Served
from recsys.storage import Place, adapter_folder

logger = logging.getLogger(__name__)


class NewItems:
    """Adds cold items of the catalog to versions, so that they can be recommended at once.

    The catalog is read again for every version; texts are encoded once. The map from texts to factors is trained on the
    version's own factors, so the model itself stays a function of the log.

    Args:
        settings: Uses the sections `items` and `storage`, and `device`; without `items.path` versions are unchanged.
        generation: Generation whose adapter is used, if its rebuild trained one.

    Raises:
        ConfigError: the packages of the extra `text` are missing.
        InputError: the catalog or the encoder cannot be read.
    """

    def __init__(self, settings: Settings, generation: int) -> None:
        self._settings = settings
        self._catalog: Catalog | None = None
        self._cold = ColdItems(settings.items)
        if settings.items.path is not None:
            adapter = adapter_folder(settings.storage.root, generation)
            self._catalog = read_catalog(settings.items)
            self._embeddings = TextEmbeddings(settings, adapter if (adapter / WEIGHTS).exists() else None)

    def join(self, served: Served) -> Served:
        """A version with the cold items of the catalog added.

        Args:
            served: A version, from `OnlineModel.served`.

        Raises:
            ConfigError: `model.kind` does not support cold items.
        """
        if self._catalog is None:
            return served
        try:
            self._catalog = read_catalog(self._settings.items)
        except InputError as error:
            # The file may be in the middle of being replaced, which must not end a stream.
            logger.warning("cannot read the catalog now, so new items come from the last one that was read: %s", error)
        if not len(self._catalog):
            return served
        texts = Texts.of(self._catalog.ids, self._embeddings.of(self._catalog.texts))
        return self._cold.extend(served, texts)


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
