"""The section of the settings about batch scoring: whom it scores, what may be in a list, and what it writes."""

from pydantic import Field, PositiveInt

from recsys.config.section import Section

_PLACE = "a table of the catalog, or a path (with a `/`) of a Delta table or of Parquet files"


class BatchScore(Section):
    """What `batch_score` scores and writes."""

    users: str | None = Field(
        None,
        description=f"Users to score, in a column `user_id`: {_PLACE}. The lists of all others stay as they are. "
        "`null`: every user that the version knows.",
    )
    allowed_items: str | None = Field(
        None,
        description="The only items that lists may hold, in a column `item_id`; a table or a path as for `users`. "
        "`null`: the whole catalog.",
    )
    excluded_items: str | None = Field(
        None,
        description="Items that single users shall not get, in columns `user_id` and `item_id`; a table or a path as "
        "for `users`. `null`: none.",
    )
    categories: str | None = Field(
        None,
        description="The category of each item, in columns `item_id` and `category`; a table or a path as for `users`. "
        "Items without one are not limited.",
    )
    category_cap: PositiveInt | None = Field(
        None, description="Items of one category in a list, at most; needs `categories`. `null`: no limit."
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How much unlike one another the items of a list shall be (maximal marginal relevance). 0: lists "
        "are in the order of their scores. 1: after the best item, only difference counts.",
    )
    exploration: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Chance that a list has an unseen item in one place; needs `explored_items`. As many lists, drawn "
        "alike, are controls. 0: none.",
    )
    explored_items: str | None = Field(
        None,
        description="The unseen items, in a column `item_id`, which the version need not know; a table or a path as "
        "for `users`.",
    )
    vectors: bool = Field(
        False,
        description="Write the factors of the version to the tables `item_vectors` and `user_vectors`, for vector "
        "search; `model.kind` has to be `mixture`, `als` or `ncf`.",
    )
