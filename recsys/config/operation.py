"""Sections of the settings about running the jobs: what they log and show, and the upkeep of what they store."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.section import Section


class Logging(Section):
    """How the jobs log their work."""

    format: Literal["text", "json"] = Field(
        "text",
        description="`text`: lines with time, level and step. `json`: the same as one JSON object per line.",
    )


class Monitoring(Section):
    """Figures of a running stream for Prometheus, and its health, over HTTP."""

    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port that serves `/metrics` and `/healthz` while `stream_update` runs; `null`: none.",
    )
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Anyone who reaches it can read the metrics; `0.0.0.0`: all networks.",
    )
    unhealthy_after_seconds: PositiveFloat = Field(
        600.0,
        description="`/healthz` answers 503 once the last commit is older and events are waiting. Set it to a few "
        "times what a batch takes.",
    )


class Serve(Section):
    """The server that `serve` runs: lists on request, over HTTP."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. There is no login: anyone who reaches it can ask for anyone's list; "
        "`0.0.0.0`: all networks.",
    )
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    refresh_seconds: PositiveFloat = Field(
        2.0, description="Seconds between two looks at the registry, and at the table, for a newer champion or list."
    )
    max_body_bytes: PositiveInt = Field(
        2**20, description="Largest body of a request; a larger one is answered with 413. 1048576 is 1 MiB."
    )
    timeout_seconds: PositiveFloat = Field(
        10.0, description="Seconds until a request that was not read and answered is given up, with 504."
    )


class Maintain(Section):
    """What `maintain` keeps."""

    versions_kept: PositiveInt = Field(
        20,
        description="Newest registered versions that are kept, besides those with an alias, the first one of the "
        "current generation, and those named by `recommend.model` or in the table `recommendations`.",
    )
    quarantine_days: PositiveFloat | None = Field(
        90,
        description="Days after which rejected records are deleted; how many there were stays in `model_updates`. "
        "`null`: never.",
    )
    trials_days: PositiveFloat | None = Field(
        365,
        description="Days after which what single users made of versions on trial is deleted; the verdict stays in "
        "`model_updates` and in the registry. Longer than any trial lasts. `null`: never.",
    )
    exposures_days: PositiveFloat | None = Field(
        365,
        description="Days after which it is deleted which lists of recommendations single users were shown; the sums "
        "of each batch stay in `model_updates`. `null`: never.",
    )


class Rebuild(Section):
    """What `rebuild` learns, if not the whole log, and where; the generation keeps to the first."""

    as_of_batch: NonNegativeInt | None = Field(
        None,
        description="Go back to the model as it was after this batch of the current generation, to the bit, instead of "
        "training; `null`: train.",
    )
    without_batches: list[NonNegativeInt] = Field(
        default_factory=list, description="Ids of batches to leave out, of whatever generation they are."
    )
    without_users: list[str] = Field(default_factory=list, description="Ids of users to leave out.")
    distributed: bool = Field(
        False,
        description="Let Spark's executors read the log and solve the factors of `model.kind: als`, where the history "
        "is larger than the driver's memory. The version carries no history.",
    )
    processes: PositiveInt = Field(
        1,
        description="Processes that train the network of `model.kind: ncf` together, each on its share of the users; "
        "on a cluster on its executors. Raise it on a machine with many cores.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Rebuild":
        if self.as_of_batch is not None and (self.without_batches or self.without_users):
            raise ValueError("as_of_batch goes back to a model that has learned everything: leave nothing out with it")
        if self.as_of_batch is not None and self.distributed:
            raise ValueError("as_of_batch goes back to a model and trains nothing: set distributed to false with it")
        return self


class Tune(Section):
    """How `tune` searches for better model settings, and on which part of the log."""

    trials: int = Field(30, ge=2, description="Settings to try, at most; the first are the configured ones.")
    seconds: PositiveFloat | None = Field(
        3_600.0,
        description="Seconds of the search, at most, but for the first trial, which is always completed; `null`: no "
        "bound. The comparison that follows takes as long as two replays of the whole log.",
    )
    share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the log's batches, from the first on, that the search sees. The rest shows whether what "
        "it found holds.",
    )
    keys: list[str] = Field(
        default_factory=list,
        description="Settings to search, of those in the search space of `model.kind`; empty: all of them.",
    )


class Requeue(Section):
    """Which quarantined records `requeue` brings back, and how they are corrected."""

    source: NonNegativeInt = Field(
        0, description="Which source they come from: 0 is `source`, 1 the first of `sources`, and so on."
    )
    reasons: list[str] = Field(
        default_factory=list, description="Only records with one of these reasons; empty: with any."
    )
    batches: list[NonNegativeInt] = Field(
        default_factory=list, description="Only records of batches with these ids; empty: of all batches."
    )
    event_types: dict[str, str] = Field(
        default_factory=dict, description="Right event type for each wrong one, such as `{veiw: view}`."
    )
    columns: dict[Literal["user_id", "item_id", "event_type", "value", "event_time", "event_id"], str] = Field(
        default_factory=dict,
        description="Names that columns have in the records, where they differ from `source.columns`, such as "
        "`{user_id: uid}`.",
    )
    path: str | None = Field(
        None,
        description="Folder for the corrected records, as JSON lines; `null`: `source.path`, which has to be a folder "
        "of JSON lines.",
    )
