"""Plots of a stream's quality and cost. They use no global state of matplotlib, so any thread may plot.

matplotlib is imported where it draws: neither a start waits for it, nor a run that has nothing new to draw.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys.contracts import LedgerRow
from recsys.storage import Place, at_hand, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

# Name of each ranker in the metrics, label, color (distinguishable by color-blind readers), line width.
RANKERS = (
    ("popularity", "recent popularity", "#8c8c8c", 1.6),
    ("first", "first model, frozen", "#d98200", 1.6),
    ("model", "model, learning", "#0868ac", 2.4),
)
STAGES = (("spark_seconds", "Spark and Delta", "#b9cfe3"), ("learn_seconds", "learning", "#0868ac"))
INK, PALE = "#333333", "#d9d9d9"
_DESCRIBED = 1024  # Bytes of a file that its description is among.
BATCHES_PER_MEAN = 12  # About this many independent means fit the width of the plot.


def quality(rows: Sequence[LedgerRow], path: Place, k: int) -> Place:
    """Write the figure of `quality_figure` to a file, unless the file shows these rows already.

    Args:
        rows: rows of one generation in order; a row that lacks a metric is passed over.
        path: PNG file; its folder is created, and the file is replaced atomically.
        k: cutoff of NDCG.

    Returns:
        The path.
    """
    shown = f"NDCG@{k} of {len(rows)} batches, the last one {rows[-1].step if rows else None}."
    if not _shows(path, shown):
        figure = quality_figure(rows, k)
        with written(path) as file:
            figure.savefig(file, format="png", metadata={"Description": shown})
    return path


def _shows(path: Place, shown: str) -> bool:
    """Whether a file is a PNG with this description; matplotlib writes it in front of the picture."""
    if not path.exists():
        return False
    with at_hand(path) as file, file.open("rb") as opened:
        return shown.encode() in opened.read(_DESCRIBED)


def quality_figure(rows: Sequence[LedgerRow], k: int) -> "Figure":
    """Draw NDCG@k and the seconds of each batch.

    Every ranker was evaluated on a batch before the batch was learned. Raw values are faint, trailing means strong.

    Args:
        rows: rows of one generation in order; a row that lacks a metric is passed over.
        k: cutoff of NDCG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    batches = np.array([row.step.batch_id for row in rows], dtype=np.int64)
    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    window = max(1, min(10, len(rows) // BATCHES_PER_MEAN))
    _draw_quality(upper, rows, batches, k, window)
    _draw_seconds(lower, rows, batches)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
        axes.tick_params(colors=INK, length=0)
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    lower.set_xlabel("micro-batch", color=INK)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_quality(axes: "Axes", rows: Sequence[LedgerRow], batches: npt.NDArray[np.int64], k: int, window: int) -> None:
    events = sum(row.events for row in rows)
    means = f", means over {window} batches" if window > 1 else ""
    axes.set_title(
        f"Recommendation quality over {len(rows):,} micro-batches ({events:,} events)",
        loc="left",
        color=INK,
        fontweight="bold",
        pad=24,
    )
    axes.text(
        0, 1.03, f"each batch is ranked first and learned after{means}", transform=axes.transAxes, color=INK, fontsize=9
    )
    axes.set_ylabel(f"NDCG@{k}", color=INK)
    for name, label, color, width in RANKERS:
        values = _figures(rows, f"{name}/ndcg_at_{k}")
        measured = np.flatnonzero(np.isfinite(values))
        if len(measured) == 0:
            continue
        means_of = trailing_mean(values, window)
        at, means_of = batches[measured], means_of[measured]
        axes.plot(at, values[measured], color=color, linewidth=0.8, alpha=0.3)
        axes.plot(at, means_of, color=color, linewidth=width, solid_capstyle="round")
        axes.plot(at[-1], means_of[-1], "o", color=color, markersize=4, label=f"{label}  {means_of[-1]:.3f}")
    if axes.lines:
        axes.legend(loc="upper left", frameon=False, labelcolor=INK, reverse=True, fontsize=9, ncols=len(RANKERS))
        axes.set_ylim(top=1.15 * axes.get_ylim()[1])  # room for the legend


def _draw_seconds(axes: "Axes", rows: Sequence[LedgerRow], batches: npt.NDArray[np.int64]) -> None:
    bottom = np.zeros(len(rows))
    for name, label, color in STAGES:
        seconds = np.nan_to_num(_figures(rows, name))
        axes.bar(batches, seconds, width=1.0, bottom=bottom, color=color, label=label, linewidth=0)
        bottom = bottom + seconds
    axes.set_ylabel("seconds", color=INK)
    axes.legend(loc="upper right", frameon=False, labelcolor=INK, ncols=len(STAGES), fontsize=9)
    if len(rows) == 0:
        return
    # One slow batch, usually the first, must not flatten the others, so it is cut off. The rest is room for the legend.
    top = max(2.2 * float(np.percentile(bottom, 95)), 0.1)
    axes.set_ylim(top=top)
    slowest = int(bottom.argmax())
    if bottom[slowest] > top:
        text = f" {bottom[slowest]:.1f} s"
        axes.text(batches[slowest] + 0.5, top, text, color=INK, fontsize=8, verticalalignment="top")


def trailing_mean(values: Array, window: int) -> Array:
    """Mean of each value and its predecessors, over a window; NaN values do not count.

    Args:
        values: (n,) values.
        window: number of values per mean, at least 1.

    Returns:
        (n,) means, NaN where the value itself is NaN.
    """
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([np.zeros(window), np.where(known, values, 0.0)]))
    counts = np.cumsum(np.concatenate([np.zeros(window), known]))
    total, count = sums[window:] - sums[:-window], counts[window:] - counts[:-window]
    return np.where(known, total / np.maximum(count, 1), np.nan)


def _figures(rows: Sequence[LedgerRow], name: str) -> Array:
    return np.array([row.metrics.get(name, np.nan) for row in rows], dtype=np.float64)
