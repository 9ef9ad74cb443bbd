"""Lines of what a bench measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from recsys.stream.plots import INK, PALE

Values = npt.NDArray[np.float64]

# Ours is blue in all pictures.
OURS, THEIRS, THIRD = "#0868ac", "#d98200", "#8c8c8c"


@dataclass(frozen=True)
class Line:
    """Points (n,) that are joined, under one name; a name that occurs again is not repeated in the legend."""

    name: str
    color: str
    x: Values
    y: Values


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title, across, up: what it shows, and what its axes are.
        lines: what is drawn.
        scale, up_scale: of the axis that runs across, and of the upright one.
        level: a height that is marked.
    """

    title: str
    across: str
    up: str
    lines: Sequence[Line]
    scale: Literal["linear", "log"] = "linear"
    level: float | None = None
    up_scale: Literal["linear", "log"] = "log"


def draw_panels(panels: Sequence[Panel], path: Path) -> Path:
    """Draw panels side by side.

    Args:
        panels: at least one; the first one's lines are in the legend.
        path: PNG to write; its folder is made.

    Returns:
        The path.
    """
    figure = Figure(figsize=(max(6.0, 0.6 + 3.4 * len(panels)), 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(panels), squeeze=False).ravel()
    for axes, panel in zip(every, panels, strict=True):
        _draw(axes, panel)
    handles, labels = every[0].get_legend_handles_labels()
    distinct = dict(zip(labels, handles, strict=True))
    figure.legend(
        distinct.values(), distinct.keys(), loc="outside upper left", frameon=False, labelcolor=INK, ncols=len(distinct)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_xscale(panel.scale)
    axes.set_yscale(panel.up_scale)
    for line in panel.lines:
        axes.plot(line.x, line.y, color=line.color, label=line.name, linewidth=1.4, marker="o", markersize=3.5)
    if panel.level is not None:
        axes.axhline(panel.level, color=INK, linewidth=0.8, linestyle="--")
    axes.set_title(panel.title, loc="left", color=INK, fontsize=9, fontweight="bold")
    axes.set_xlabel(panel.across, color=INK, fontsize=9)
    axes.set_ylabel(panel.up, color=INK, fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(which="both", colors=INK, length=0, labelsize=8)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
