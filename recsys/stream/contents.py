"""What the catalog says of the items of a batch, written down before the batch is logged."""

from collections.abc import Callable
from dataclasses import replace

from recsys.catalogue import ItemVectors, present_catalog
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import InputError
from recsys.model.interactions.described import Described
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.tables import contents
from recsys.tables.delta import Tables


class ItemContents:
    """Gives batches the vectors of items that the model has not had, or has had otherwise.

    Only `model.mixture.members: [..., content]` uses them; without it batches stay as they are.

    Args:
        settings: All settings.
        tables: The Delta tables.
        catalog: The catalog; it is asked for every batch, so a change counts from the next one on.
        observe: Called with the stage `contents` when a batch's vectors are written down.
    """

    def __init__(
        self, settings: Settings, tables: Tables, catalog: ItemVectors | None, observe: Callable[[str, StepId], None]
    ) -> None:
        self._tables, self._space, self._observe = tables, settings.items.space, observe
        self._catalog = catalog if settings.uses_contents else None

    def bring(self, batch: InteractionBatch, model: OnlineModel, step: StepId, application: str) -> InteractionBatch:
        """Write down once what a batch brings, and return the batch with it.

        Args:
            batch: A batch that is not in the log yet, or not learned.
            model: The model before it.
            step: Its step.
            application: Transaction application id of the stream.

        Raises:
            InputError: the vectors of the catalog have another length than those before.
        """
        if self._catalog is None:
            return batch
        items, described = list(dict.fromkeys(batch.item_ids)), self._catalog.described()
        known = model.content.vectors_of(model.items.lookup(items))
        now, before = described.vectors.shape[1], known.shape[1]
        if before and len(described.items) and now != before:
            raise InputError(
                f"the vectors of the catalog have {now} numbers, and had {before} before: "
                "put back what they were made with, or run jobs/rebuild.py to train a model with the new ones"
            )
        new = described.unlike(items, known)
        brought = contents.append(self._tables, new, step, application, step.batch_id, self._space)
        if brought.item_ids:
            self._observe("contents", step)
        return replace(batch, contents=brought)

    def given(self, batch: InteractionBatch, step: StepId) -> InteractionBatch:
        """A batch that is in the log, with what was written down for it."""
        if self._catalog is None:
            return batch
        return replace(batch, contents=contents.of_batch(self._tables, step, self._space))


def write_catalog(settings: Settings, tables: Tables, begin: StepId) -> None:
    """Write down the whole catalog as of the rebuild that begins a generation, from which it learns; once.

    Args:
        settings: All settings; without the member `content` nothing is written.
        tables: The Delta tables.
        begin: The first step of the generation.
    """
    described = present_catalog(settings)
    if described is not None:
        everything, space = described.of(described.items.ids), settings.items.space
        contents.append(tables, everything, begin, f"recsys:rebuild:{space}", begin.generation, space)


def catalog_of(settings: Settings, tables: Tables, begin: StepId) -> Described | None:
    """What `write_catalog` has written; None without the member `content`."""
    if not settings.uses_contents:
        return None
    found = contents.of_batch(tables, begin, settings.items.space)
    return Described(Vocabulary(found.item_ids), found.vectors)
