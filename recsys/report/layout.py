"""What a page consists of."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.report.charts import Spec
from recsys.report.samples import SampleList

MOST_ROWS = 12  # Of a table on the page.


@dataclass(frozen=True)
class Tile:
    """One of the few figures on top."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class ReportPlot:
    """A plot with its title, which also tells what is in it to somebody who cannot see it."""

    title: str
    spec: Spec


@dataclass(frozen=True)
class ReportTable:
    """A table of texts; `folded` hides it until it is asked for."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class ReportSection:
    """A section.

    Attributes:
        topic: What it is about.
        message: What its figures say, in a line.
        note: How to read them.
        plots: Plots; small ones stand beside one another where there is room.
        tables: Tables.
        lists: Sample lists.
        todo: What to do, where there is nothing to show.
    """

    topic: str
    message: str = ""
    note: str = ""
    plots: Sequence[ReportPlot] = ()
    tables: Sequence[ReportTable] = ()
    lists: Sequence[SampleList] = ()
    todo: str = ""
