"""Vega-Lite specifications of the plots, made with Altair.

Colors are variables of the page's style sheet, so a plot is right in the light and in the dark without a script. Values
are named by position (`s0`, `s1`, ...), because a name that comes from data may contain what Vega takes for a path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np

from recsys.report.timeline import Array, Points
from recsys.stream.plots import trailing_mean

Spec = dict[str, Any]

HEIGHT = 230
_APART = 15  # Pixels between two labels.
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_INK, _MUTED, _GRID = "var(--ink)", "var(--muted)", "var(--grid)"


@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Attributes:
        name: What it shows.
        color: A CSS color.
        values: (points,) values, NaN where there is none.
        strong: Whether it is what the plot is about.
    """

    name: str
    color: str
    values: Array
    strong: bool = False


@dataclass(frozen=True)
class Label:
    """A text beside a place of a plot."""

    x: int
    y: float
    text: str
    color: str


@dataclass(frozen=True)
class GateLook:
    """An estimate with its bounds, at a point of a timeline."""

    position: int
    step: str
    version: str
    lower: float
    estimate: float
    upper: float
    passed: bool


def lines(
    points: Points,
    curves: Sequence[Curve],
    form: str,
    ticks: str | None = None,
    marks: Sequence[int] = (),
    smooth: bool = True,
) -> Spec:
    """Lines with their names and last values beside their ends; what was measured faint, trailing means strong.

    Args:
        points: Where the values are.
        curves: The lines; one without a value is left out.
        form: d3 format of the values.
        ticks: d3 format of the axis; None: the same.
        marks: Positions at which something happened.
        smooth: Draw trailing means; without, the values themselves.
    """
    curves = [curve for curve in curves if np.isfinite(curve.values).any()]
    window = points.window if smooth else 1
    drawn = [trailing_mean(curve.values, window) for curve in curves]
    top = max((float(np.nanmax(curve.values)) for curve in curves), default=0.0) or 1.0
    scale = alt.Scale(domain=[0, top], nice=True)
    y = alt.Y("y:Q", scale=scale, axis=_axis(ticks or form))
    layers: list[alt.Chart] = [_vertical(marks)] if marks else []
    for curve, means in zip(curves, drawn, strict=True):
        if window > 1:
            faint = alt.Chart(_values(points, curve.values)).mark_line(strokeWidth=1, opacity=0.25)
            layers.append(faint.encode(_x(points), y, color=alt.value(curve.color)))
        width = 2.6 if curve.strong else 1.7
        line = alt.Chart(_values(points, means)).mark_line(strokeWidth=width, strokeCap="round", strokeJoin="round")
        layers.append(line.encode(_x(points), y, color=alt.value(curve.color)))
    lasts = [last_value(means) for means in drawn]
    placed = spread(lasts, _APART * top / HEIGHT)
    ends = [
        Label(points.positions[-1], place, f"{curve.name} {last:{form}}", curve.color)
        for curve, place, last in zip(curves, placed, lasts, strict=True)
    ]
    layers.append(_labels(ends, y))
    layers.append(_hover(points, [(curve.name, values) for curve, values in zip(curves, drawn, strict=True)], form))
    return _spec(layers, HEIGHT)


def areas(points: Points, curves: Sequence[Curve]) -> Spec:
    """Shares that add up to 1, one upon the other, the large ones named where they end."""
    return _stacked(points, curves, 1.0, ".0%", height=150, smallest=0.07)


def stacks(points: Points, curves: Sequence[Curve], form: str) -> Spec:
    """Parts that add up, one upon the other; a few very large points are cut off, so that the others can be seen."""
    whole = np.sum([np.nan_to_num(curve.values) for curve in curves], axis=0)
    top = min(1.6 * float(np.percentile(whole, 95)), float(whole.max()))
    return _stacked(points, curves, top or 1.0, form, HEIGHT)


def intervals(points: Points, looks: Sequence[GateLook]) -> Spec:
    """What the gate knew after each batch of a trial; zero is where a challenger is as good as it has to be."""
    values = [
        {
            "x": look.position, "step": look.step, "version": look.version, "y": look.estimate,
            "low": look.lower, "high": look.upper, "c": "var(--good)" if look.passed else _MUTED,
        }
        for look in looks
    ]  # fmt: skip
    tip = [
        alt.Tooltip("step:N", title="batch"),
        alt.Tooltip("version:N", title="version on trial"),
        alt.Tooltip("y:Q", title="estimate", format="+.4f"),
        alt.Tooltip("low:Q", title="from", format="+.4f"),
        alt.Tooltip("high:Q", title="to", format="+.4f"),
    ]
    base = alt.Chart(_data(values)).encode(x=_x(points), tooltip=tip, color=_own_color())
    y = alt.Y("low:Q", axis=_axis("+.2f"))
    zero = alt.Chart(_data([{"y": 0}])).mark_rule(strokeWidth=1.2).encode(y="y:Q", color=alt.value(_INK))
    bars = base.mark_rule(strokeWidth=2.5, opacity=0.55, strokeCap="round").encode(y, y2="high:Q")
    dots = base.mark_point(filled=True, size=42, opacity=1).encode(y="y:Q")
    lasts = {look.version: look for look in looks}
    ends = [
        {"x": look.position, "y": look.upper, "t": f"v{look.version}", "c": "var(--good)" if look.passed else _MUTED}
        for look in lasts.values()
    ]
    text = alt.Chart(_data(ends)).mark_text(dy=-9, fontSize=12, fontWeight=600)
    named = text.encode(_x(points), alt.Y("y:Q"), text="t:N", color=_own_color())
    return _spec([zero, bars, dots, named], HEIGHT)


def bars(counts: Sequence[tuple[str, float]], form: str) -> Spec:
    """A horizontal bar for each name, the number at its end."""
    values = [{"t": name, "n": order, "y": count} for order, (name, count) in enumerate(counts)]
    name = alt.Y("n:O", axis=None, scale=alt.Scale(paddingInner=0.55, paddingOuter=0.5))
    base = alt.Chart(_data(values)).encode(
        y=name, tooltip=[alt.Tooltip("t:N", title="reason"), alt.Tooltip("y:Q", title="records", format=form)]
    )
    length = alt.X("y:Q", axis=None)
    bar = base.mark_bar(cornerRadiusEnd=2, height=9, yOffset=9).encode(length, color=alt.value("var(--orange)"))
    # Names above the bars: beside them, they would leave a phone no room.
    named = base.mark_text(align="left", baseline="middle", dy=-5, limit=330).encode(x=alt.value(0), text="t:N")
    number = base.mark_text(align="left", baseline="middle", dx=6, dy=9, fontWeight=600).encode(
        length, text=alt.Text("y:Q", format=form)
    )
    return _spec([bar, named, number], 42 * len(values))


def last_value(values: Array) -> float:
    """The last value that is a number; 0 if there is none."""
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else 0.0


def spread(places: Sequence[float], apart: float) -> list[float]:
    """Places in the same order, moved up where they are nearer than a distance; the lowest keeps its place.

    Args:
        places: Where labels would be.
        apart: The distance.
    """
    moved = [0.0] * len(places)
    floor = -np.inf
    for place in sorted(range(len(places)), key=lambda number: places[number]):
        floor = moved[place] = float(max(places[place], floor))
        floor += apart
    return moved


def whole_step(span: int) -> int:
    """A step of 1, 2 or 5 times a power of ten of which a span has at most six."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if span <= 6 * step:
                return step
        power *= 10


def _stacked(
    points: Points, curves: Sequence[Curve], top: float, form: str, height: int, smallest: float = 0.0
) -> Spec:
    """Areas upon one another in the order of the curves, with the names of those that do not end too small."""
    parts = [np.nan_to_num(curve.values) for curve in curves]
    values = [
        {"x": x, "y": y, "n": order}
        for order, part in enumerate(parts)
        for x, y in zip(points.positions, part.tolist(), strict=True)
    ]
    colors = alt.Scale(domain=list(range(len(curves))), range=[curve.color for curve in curves])
    scale = alt.Scale(domain=[0, top], clamp=True)
    area = (
        alt.Chart(_data(values))
        .mark_area(interpolate="monotone", clip=True, opacity=0.9)
        .encode(
            x=_x(points),
            y=alt.Y("y:Q", stack=True, scale=scale, axis=_axis(form)),
            color=alt.Color("n:O", scale=colors, legend=None),
            order=alt.Order("n:O"),
        )
    )
    lasts = [float(part[-1]) for part in parts]
    middles = [min(sum(lasts[:order]) + last / 2, top) for order, last in enumerate(lasts)]
    placed = spread(middles, _APART * top / height)
    ends = [
        Label(points.positions[-1], place, f"{curve.name} {last:{form}}", curve.color)
        for curve, place, last in zip(curves, placed, lasts, strict=True)
        if last >= smallest
    ]
    hover = _hover(points, [(curve.name, curve.values) for curve in curves], form)
    return _spec([area, _labels(ends, alt.Y("y:Q", scale=scale)), hover], height)


def _labels(labels: Sequence[Label], y: alt.Y) -> alt.Chart:
    values = [{"x": label.x, "y": label.y, "t": label.text, "c": label.color} for label in labels]
    text = alt.Chart(_data(values)).mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight=600)
    found: alt.Chart = text.encode(x="x:Q", y=y, text="t:N", color=_own_color())
    return found


def _vertical(marks: Sequence[int]) -> alt.Chart:
    values = [{"x": position} for position in marks]
    rule = alt.Chart(_data(values)).mark_rule(strokeDash=[3, 3], strokeWidth=1.2, opacity=0.8)
    found: alt.Chart = rule.encode(x="x:Q", color=alt.value(_MUTED))
    return found


def _hover(points: Points, series: Sequence[tuple[str, Array]], form: str) -> alt.Chart:
    """A column for each point, which shows itself and all values there when the pointer is in it."""
    places = points.positions
    bounds = [places[0], *((before + after) / 2 for before, after in pairwise(places)), max(places[-1], places[0] + 1)]
    values = [
        {
            "x": left,
            "to": right,
            "step": step,
            **{f"s{number}": _number(of[at]) for number, (_, of) in enumerate(series)},
        }
        for at, ((left, right), step) in enumerate(zip(pairwise(bounds), points.steps, strict=True))
    ]
    under = alt.selection_point(on="pointerover", clear="pointerout", fields=["x"], empty=False)
    tip = [alt.Tooltip("step:N", title="batch")]
    tip += [alt.Tooltip(f"s{number}:Q", title=name, format=form) for number, (name, _) in enumerate(series)]
    opacity = alt.condition(under, alt.value(0.12), alt.value(0))
    column = alt.Chart(_data(values)).mark_rect()
    found: alt.Chart = column.encode(x=_x(points), x2="to:Q", opacity=opacity, color=alt.value(_INK), tooltip=tip)
    return found.add_params(under)


def _own_color() -> alt.Color:
    """The color that a value has in its field `c`."""
    return alt.Color("c:N", scale=None, legend=None)


def _x(points: Points) -> alt.X:
    first, last = points.positions[0], max(points.positions[-1], points.positions[0] + 1)
    step = whole_step(last - first)
    ticks = list(range(-(-first // step) * step, last + 1, step))
    axis = alt.Axis(title=None, values=ticks, format="d", grid=False, labelOverlap="greedy", labelSeparation=8)
    return alt.X("x:Q", scale=alt.Scale(domain=[first, last], nice=False), axis=axis)


def _axis(form: str) -> alt.Axis:
    return alt.Axis(title=None, format=form, tickCount=4)


def _values(points: Points, values: Array) -> alt.InlineData:
    pairs = zip(points.positions, values.tolist(), strict=True)
    return _data([{"x": x, "y": y} for x, y in pairs if np.isfinite(y)])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _data(values: list[Spec]) -> alt.InlineData:
    return alt.InlineData(values=values)


def _spec(layers: Sequence[alt.Chart], height: int) -> Spec:
    """The specification: as wide as its place on the page, in the page's colors."""
    chart = alt.LayerChart(layer=layers).properties(
        width="container", height=height, padding={"left": 2, "right": 4, "top": 14, "bottom": 4}
    )
    axis = {"labelColor": _MUTED, "labelFontSize": 12, "gridColor": _GRID, "domain": False, "ticks": False}
    found: Spec = (
        chart.configure(
            font=_FONT, background="transparent", autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
        )
        .configure_axis(**axis, labelPadding=6)
        .configure_view(stroke=None)
        .configure_text(color=_INK, fontSize=12)
        .to_dict()
    )
    return found
