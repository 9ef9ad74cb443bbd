"""Pictures of what a bench measured."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recsys.stream.plots import INK, PALE

Values = npt.NDArray[np.float64]

# From the simplest method to ours; told apart by color-blind readers too.
COLORS = ("#d0d0d0", "#a8a8a8", "#707070", "#d98200", "#74a9cf", "#0868ac", "#1b7837")


def grouped_bars(panels: Mapping[str, Mapping[str, Sequence[Values]]], measures: Sequence[str], path: Path) -> Path:
    """Draw one panel for each question, two in a row: bars of all methods side by side for each measure.

    Args:
        panels: by title and method, the values of each user, (users,), for each measure; seven methods in each panel.
        measures: what is measured.
        path: PNG to write; its folder is made.

    Returns:
        The path.
    """
    draws = [partial(_draw, title=title, methods=methods, measures=measures) for title, methods in panels.items()]
    return in_rows(draws, path, size=(9, 2.9), columns=2)


def in_rows(draws: Sequence[Callable[[Axes], None]], path: Path, size: tuple[float, float], columns: int) -> Path:
    """Draw panels in rows, under one legend, which is that of the first.

    Args:
        draws: draw one panel each, at least one.
        path: PNG to write; its folder is made.
        size: inches, the whole picture's width and a row's height.
        columns: panels in a row.

    Returns:
        The path.
    """
    rows = -(-len(draws) // columns)
    figure = Figure(figsize=(size[0], 0.5 + size[1] * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, draw in zip(every, draws, strict=False):
        draw(axes)
    for axes in every[len(draws) :]:
        axes.set_axis_off()
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", frameon=False, labelcolor=INK, fontsize=8, ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def plain(axes: Axes, labelsize: float) -> None:
    """Have axes stand back behind what they hold."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, length=0, labelsize=labelsize)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw(axes: Axes, title: str, methods: Mapping[str, Sequence[Values]], measures: Sequence[str]) -> None:
    width = 0.8 / len(methods)
    for number, ((name, values), color) in enumerate(zip(methods.items(), COLORS, strict=True)):
        places = np.arange(len(measures)) + (number - (len(methods) - 1) / 2) * width
        means = [float(of_users.mean()) for of_users in values]
        errors = [float(of_users.std()) / len(of_users) ** 0.5 for of_users in values]
        axes.bar(places, means, 0.92 * width, color=color, label=name, linewidth=0)
        label = "standard error" if number == len(methods) - 1 else None
        axes.errorbar(places, means, errors, fmt="none", ecolor=INK, elinewidth=0.8, label=label)
        for place, mean, error in zip(places, means, errors, strict=True):
            text = f"{mean:.3f}".lstrip("0")
            axes.text(place, mean + error, text, color=INK, fontsize=6, ha="center", va="bottom")
    axes.set_title(title, loc="left", color=INK, fontsize=9, fontweight="bold")
    axes.set_xticks(np.arange(len(measures)), measures)
    plain(axes, 9)
    axes.margins(y=0.1)
