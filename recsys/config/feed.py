"""The sections of the settings that say when a feed is broken, and what follows."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recsys.config.section import Section

AlertKind = Literal["quarantine", "unknown_types", "duplicates", "silence"]


class Quarantine(Section):
    """When so many records are refused that the feed is called broken."""

    max_share: float | None = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of refused records above which there is an alert; `null`: none.",
    )
    max_unknown_type_share: float | None = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of records whose event type is not in `weights` above which there is an alert; `null`: "
        "none.",
    )
    window_records: PositiveInt = Field(
        1_000,
        description="A share has to be above its limit both in a batch and in the latest batches that have at least so "
        "many records together. More: fewer alerts where batches are small.",
    )
    dead_letter_topic: str | None = Field(
        None,
        description="Kafka topic that gets the refused records, too, at least once each, with their reasons in a "
        "header; `null`: only the table has them.",
    )


class Feed(Section):
    """What else is expected of the feed, and which alerts stop the stream."""

    max_duplicate_share: float | None = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of records dropped as duplicates above which there is an alert; `null`: none. Measured "
        "like the shares of `quarantine`.",
    )
    max_silence_seconds: PositiveFloat | None = Field(
        None, description="Seconds without any record after which there is an alert; `null`: any silence is expected."
    )
    stop_on: list[AlertKind] = Field(
        default_factory=list,
        description="Alerts after which the stream stops with exit code 75, once the batch is complete; the next start "
        "goes on after it. `[quarantine, unknown_types]` where nobody should learn from a broken feed.",
    )
