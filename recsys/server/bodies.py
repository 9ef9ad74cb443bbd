"""What requests and answers hold, as JSON.

Names, kinds and bounds are checked here. What a request means is up to the version, see `recsys.serving.Answers`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

# Requests of a body, and items of a list: together they bound the work and the memory of an answer.
MOST_REQUESTS = 100
MOST_ITEMS = 1_000


def _whole_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _in_unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it has half a character, which no text has") from None
    return value


def _as_list(value: Any) -> Any:
    if isinstance(value, bytes):  # As FastAPI passes on a body that is not declared to be JSON.
        raise ValueError("send JSON, with the header Content-Type: application/json")
    return value if isinstance(value, list) else [value]


Id = Annotated[str, BeforeValidator(_whole_as_text), AfterValidator(_in_unicode)]
Length = Annotated[int, Field(ge=1, le=MOST_ITEMS, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class AskedRow(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Columns that no request gives, because they are the same for all.
    constant: ClassVar[dict[str, Any]] = {}


class AskedList(AskedRow):
    """A list for a user. The fields are columns of the task `recommend`."""

    constant: ClassVar[dict[str, Any]] = {"origin": True}

    user_id: Id | None
    k: Length | None = None
    exclude_seen: Flag | None = None
    candidates: list[Id] | None = None
    exclude_items: list[Id] | None = None
    recent_items: list[Id] | None = None
    explain: Flag | None = None


class AskedSimilar(AskedRow):
    """The items most like another one. The fields are the columns of the task `similar_items`."""

    item_id: Id
    k: Length | None = None


class AskedScore(AskedRow):
    """The score of a pair. The fields are the columns of the task `score`."""

    user_id: Id | None
    item_id: Id
    recent_items: list[Id] | None = None


_One, _Several = BeforeValidator(_as_list), Field(min_length=1, max_length=MOST_REQUESTS)
# One request, or a list of them.
AskedLists = Annotated[list[AskedList], _One, _Several]
AskedSimilars = Annotated[list[AskedSimilar], _One, _Several]
AskedScores = Annotated[list[AskedScore], _One, _Several]


def columns_of(asked: Sequence[AskedRow]) -> dict[str, list[Any]]:
    """Requests as columns: the fields that at least one of them gives, and what is the same for all."""
    kind = type(asked[0])
    names = [name for name in kind.model_fields if any(name in one.model_fields_set for one in asked)]
    given = {name: [getattr(one, name) for one in asked] for name in names}
    return given | {name: [value] * len(asked) for name, value in kind.constant.items()}


class _Given(BaseModel):
    """Which version has answered."""

    model: str
    version: str


class _GivenUser(_Given):
    """In an experiment, with the arm of the user."""

    arm: str | None = None


class GivenList(_GivenUser):
    """The best items of a user, best first. That of a known user has a `list_id`, for the events that answer it."""

    user_id: str | None
    item_ids: list[str]
    scores: list[float]
    explanation: dict[str, Any] | None = None
    list_id: str | None = None


class GivenSimilar(_Given):
    """The items most like another one, best first."""

    item_id: str
    item_ids: list[str]
    scores: list[float]


class GivenScore(_GivenUser):
    """The score of a pair; null for an unknown item."""

    user_id: str | None
    item_id: str
    score: float | None


class GivenLists(BaseModel):
    """Lists, in the order of the requests; `source` is where they come from."""

    source: Literal["live", "table"]
    lists: list[GivenList]


class GivenSimilars(BaseModel):
    """Lists of similar items, in the order of the requests."""

    lists: list[GivenSimilar]


class GivenScores(BaseModel):
    """Scores, in the order of the requests."""

    scores: list[GivenScore]
