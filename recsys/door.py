"""The public API of the model: frames of events in, frames of recommendations out."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.batches import events_per_batch
from recsys.catalogue import present_catalog
from recsys.config import Settings
from recsys.config.settings import PRIVATE, as_settings, check_settings
from recsys.contracts import StepId
from recsys.errors import ConfigError, InputError
from recsys.frames import given_events, to_frame
from recsys.lists import AskedFor, answered_frame, as_id, as_ids, as_length, as_pairs, lists_frame, similar_frame
from recsys.model import snapshot
from recsys.model.interactions.described import with_vectors
from recsys.model.recommender import OnlineModel
from recsys.model.similar import item_arrays
from recsys.model.snapshot import Snapshot
from recsys.serving import Answers, Ranker, RefusedError

if TYPE_CHECKING:
    import pandas as pd

SETTINGS_FILE, MODEL_FILE = "settings.json", "model.safetensors"
# Scores computed at once.
_SCORES_AT_ONCE = 1 << 24


def fit(events: Any, settings: Settings | Mapping[str, Any] | None = None) -> "Recommender":
    """Fit a model to a history of events.

    The events are cut by time into about a hundred batches. Most are learned in bulk. The last ones are first ranked
    and then learned, one by one as in the stream, which trains the re-ranker. The same events give the same model to
    the last bit, whatever the order of the rows.

    Args:
        events: A pandas, polars, pyarrow or Spark DataFrame (anything with the Arrow PyCapsule interface), a dictionary
            of columns or a list of dictionaries. Columns:

            - `user_id`, `item_id`: text, or integers, which are converted to text.
            - `event_time`: timestamps, ISO 8601 text (UTC if it has no zone), or epoch seconds or milliseconds.
            - `event_type` (optional): a key of `weights`; `view` if there is no such column.
            - `value` (optional): a number, for event types whose weight uses it.
            - `event_id` (optional): of several events with the same id, the earliest counts.

            Columns with other names are mapped by `source.columns`.
        settings: A `Settings`, or overrides of the defaults by dotted key, such as `{"model.factors": 32}`.

    Returns:
        A model that recommends and can be updated.

    Raises:
        InputError: the events are not a frame, are empty, lack a column, have a column of the wrong type, or are all
            bad.
        ConfigError: a setting is unknown or invalid.

    Warns:
        InputWarning: bad rows are left out; the message says how many, and why.

    Examples:
        >>> model = fit(
        ...     [
        ...         {"user_id": 1, "item_id": 10, "event_time": "2024-05-01", "event_type": "view"},
        ...         {"user_id": 2, "item_id": 10, "event_time": "2024-05-02", "event_type": "purchase"},
        ...         {"user_id": 2, "item_id": 20, "event_time": "2024-05-03", "event_type": "view"},
        ...     ],
        ...     {"model.factors": 8},
        ... )
        >>> model
        Recommender(mixture: 2 users, 2 items, events until 2024-05-03)
    """
    checked = as_settings(settings)
    read, model = given_events(events, checked), OnlineModel(checked)
    batches = [(StepId(0, number), batch) for number, batch in enumerate(read.batches(events_per_batch(len(read))))]
    model.rebuild(with_vectors(present_catalog(checked), batches), batches[-1][0])
    return Recommender(model)


def load(folder: str | Path) -> "Recommender":
    """Load a model that `Recommender.save` wrote.

    Args:
        folder: The folder.

    Returns:
        A model that behaves exactly like the saved one.

    Raises:
        InputError: the folder has no saved model, or a damaged one.

    Examples:
        >>> import tempfile
        >>> events = [{"user_id": "u1", "item_id": "i1", "event_time": "2024-05-01"}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit(events).save(folder)
        ...     load(folder)
        Recommender(mixture: 1 users, 1 items, events until 2024-05-01)
    """
    folder = Path(folder)
    for name in (SETTINGS_FILE, MODEL_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no saved model ({name} is missing): give the folder that save wrote")
    try:
        settings = check_settings(json.loads((folder / SETTINGS_FILE).read_text("utf-8")))
    except (ValueError, ConfigError) as error:
        raise InputError(f"cannot read {folder / SETTINGS_FILE}: {error}") from error
    try:
        return Recommender(snapshot.load(folder / MODEL_FILE, settings))
    except snapshot.UnusableSnapshotError as error:
        raise InputError(f"{error}: fit the model again, and save it") from error


class Recommender:
    """A model that recommends items to users and can be updated. Created by `fit` and `load`.

    Examples:
        >>> model = fit(
        ...     {
        ...         "user_id": ["u1", "u1", "u2", "u3"],
        ...         "item_id": ["i1", "i2", "i1", "i2"],
        ...         "event_time": [1714521600, 1714525200, 1714528800, 1714532400],
        ...     }
        ... )
        >>> model.update({"user_id": ["u4"], "item_id": ["i3"], "event_time": [1714536000]})
        >>> model
        Recommender(mixture: 4 users, 3 items, events until 2024-05-01)
    """

    def __init__(self, model: OnlineModel) -> None:
        self._model = model
        # What answers more than plain lists, as of which batch.
        self._answers: tuple[StepId | None, Answers] | None = None

    def __repr__(self) -> str:
        model = self._model
        until = datetime.fromtimestamp(model.history.latest_time, UTC)
        kind, users, items = model.settings.model.kind, len(model.users), len(model.items)
        return f"Recommender({kind}: {users:,} users, {items:,} items, events until {until:%Y-%m-%d})"

    @property
    def settings(self) -> Settings:
        """The settings of the model."""
        return self._model.settings

    def recommend(
        self,
        user_ids: str | int | Iterable[str | int],
        k: int | None = None,
        *,
        exclude_seen: bool | None = None,
        candidates: Iterable[str | int] | None = None,
        exclude_items: Iterable[str | int] | None = None,
        recent_items: Iterable[str | int] | None = None,
        explain: bool = False,
    ) -> "pd.DataFrame":
        """Rank items for users.

        Items that a user has interacted with are left out unless `recommend.exclude_seen` is false. Unknown users get
        the most popular items.

        Args:
            user_ids: Ids, or a single id.
            k: Items per list; None: `recommend.k`. A list is shorter if fewer items are left.
            exclude_seen: Leave out what the users have interacted with; None: `recommend.exclude_seen`.
            candidates: Choose among these items, for all users of the call; so do the next two.
            exclude_items: Recommend none of these.
            recent_items: What the users have done since the last update, latest last; the last 1,000 count.
            explain: Add a column `explanation`, JSON text: `contributions` that add up to the score, and `because` of
                which items of the user.

        Returns:
            `user_id`, `rank` (from 1), `item_id`, `score` (higher is better; what it is depends on `model.kind`: for
            `mixture` the log-odds of an interaction), list by list in the order of the ids. With `items.path` also
            `title`. A pandas DataFrame, or a pyarrow.Table if pandas is not installed.

        Raises:
            InputError: something is not an id, `k` is below 1, or the catalog of `items.path` cannot be read.

        Examples:
            >>> model = fit([{"user_id": "u1", "item_id": "i1", "event_time": "2024-05-01"}])
            >>> list(model.recommend("u2", k=10)["item_id"])
            ['i1']
        """
        users, k = as_ids(user_ids), as_length(self.settings.recommend.k if k is None else k)
        wanted = AskedFor(exclude_seen, candidates, exclude_items, recent_items, explain)
        if not wanted.plain:
            return answered_frame(users, self._answer("recommend", wanted.columns(users, k)), {}, self._titles())
        size = max(1, _SCORES_AT_ONCE // max(len(self._model.items), 1))
        lists = list[list[tuple[str, float]]]()
        for begin in range(0, len(users), size):
            lists += self._model.recommend(users[begin : begin + size], k)
        return lists_frame(users, lists, titles=self._titles())

    def score(
        self,
        user_ids: str | int | Iterable[str | int],
        item_ids: str | int | Iterable[str | int],
        recent_items: Iterable[str | int] | None = None,
    ) -> "pd.DataFrame":
        """Score pairs of users and items.

        Args:
            user_ids: Ids (n,), or a single id for all items.
            item_ids: Ids (n,).
            recent_items: See `recommend`.

        Returns:
            `user_id`, `item_id`, `score`, NaN for an unknown item; the scores are those of `recommend`.

        Raises:
            InputError: something is not an id, or there are not as many users as items.

        Examples:
            >>> model = fit([{"user_id": "u1", "item_id": "i1", "event_time": "2024-05-01"}])
            >>> model.score("u2", ["i1", "other"])["score"].isna().tolist()
            [False, True]
        """
        frame: pd.DataFrame = to_frame(self._answer("score", as_pairs(user_ids, item_ids, recent_items)))
        return frame

    def _answer(self, task: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Do a task as a registered version of the model would."""
        if self._answers is None or self._answers[0] != self._model.step:
            own = self.settings.recommend
            ranker = Ranker(self._model.served().packed())
            self._answers = self._model.step, Answers(ranker, own.k, own.exclude_seen, {})
        try:
            return self._answers[1].of(task, columns)
        except RefusedError as error:
            raise InputError(str(error)) from error

    def _titles(self) -> Mapping[str, str]:
        """Titles of the items."""
        if self.settings.items.path is None:
            return {}
        try:
            from recsys.item_texts import read_titles
        except ModuleNotFoundError as error:
            raise ConfigError(f"items.path needs {error.name}: pip install pandas, or set it to null") from error
        return read_titles(self.settings.items)

    def similar_items(self, item_id: str | int, k: int = 10) -> "pd.DataFrame":
        """Rank the items that are most similar to an item.

        Args:
            item_id: The item.
            k: Items in the list.

        Returns:
            `rank` (from 1), `item_id`, `score`. The score is the cosine of the items' factors; a model of kind
            `cooccurrence` gives the share of users' next items that an item has.

        Raises:
            InputError: the model does not know the item, or its kind has no similar items.

        Examples:
            >>> events = {"user_id": [1, 1, 2, 2], "item_id": list("abab"), "event_time": ["2024-05-01"] * 4}
            >>> list(fit(events).similar_items("a")["item_id"])
            ['b']
        """
        model, k = self._model, as_length(k)
        (row,) = model.items.lookup([as_id(item_id)]).tolist()
        return similar_frame(item_id, row, item_arrays(model), model.items.ids, k)

    def update(self, events: Any) -> None:
        """Learn new events, batch by batch, at a cost that depends on them and not on the history.

        Args:
            events: A frame as for `fit`, with new events only: an event that is passed twice counts twice, even with an
                `event_id`.

        Raises:
            InputError: see `fit`.

        Warns:
            InputWarning: bad rows are left out; the message says how many, and why.

        Examples:
            >>> model = fit([{"user_id": "u1", "item_id": "i1", "event_time": "2024-05-01"}])
            >>> model.update([{"user_id": "u2", "item_id": "i2", "event_time": "2024-05-02"}])
        """
        read = given_events(events, self.settings)
        last = self._model.step
        assert last is not None
        numbered = enumerate(read.batches(events_per_batch(len(read))), start=last.batch_id + 1)
        batches = ((StepId(last.generation, number), batch) for number, batch in numbered)
        for step, batch in with_vectors(present_catalog(self.settings), batches):
            self._model.update(batch, step)

    def save(self, folder: str | Path) -> None:
        """Write the model and its settings to a folder, which is created if it is missing; `load` reads it.

        Reader options, Spark settings and the MLflow URI are not written, because they may contain passwords.

        Args:
            folder: The folder.

        Raises:
            InputError: the folder cannot be written to.

        Examples:
            >>> import os, tempfile
            >>> model = fit([{"user_id": "u1", "item_id": "i1", "event_time": "2024-05-01"}])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save(folder)
            ...     sorted(os.listdir(folder))
            ['model.safetensors', 'settings.json']
        """
        folder = Path(folder)
        text = self.settings.model_dump_json(by_alias=True, indent=2, exclude=PRIVATE)
        try:
            Snapshot.of(self._model).save(folder / MODEL_FILE)
            (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot save the model in {folder}: {error.strerror or error}") from error
