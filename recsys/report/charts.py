"""Vega-Lite specifications of the plots, made with Altair.

Colors are variables of the page's style sheet, so a plot is right in the light and in the dark without a script. Values
are named by position (`s0`, `s1`, ...), because a name that comes from data may contain what Vega takes for a path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from recsys.report.timeline import Array, Points
from recsys.stream.plots import BATCHES_PER_MEAN, trailing_mean

Spec = dict[str, Any]

HEIGHT = 230
_LABELS = 118  # Pixels right of a plot for the names of its lines.
_APART = 15  # Pixels between two of them.
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
class Interval:
    """An estimate with its bounds, at a point of a points."""

    position: int
    step: str
    version: str
    lower: float
    estimate: float
    upper: float
    promoted: bool


def lines(points: Points, curves: Sequence[Curve], form: str, marks: Sequence[int] = (), smooth: bool = True) -> Spec:
    """Lines with their names and last values beside their ends; what was measured faint, trailing means strong.

    Args:
        points: Where the values are.
        curves: The lines; one without a value is left out.
        form: d3 format of the values.
        marks: Positions at which something happened.
        smooth: Draw trailing means; without, the values themselves.
    """
    curves = [curve for curve in curves if np.isfinite(curve.values).any()]
    window = max(1, min(10, len(points) // BATCHES_PER_MEAN)) if smooth else 1
    drawn = [trailing_mean(curve.values, window) for curve in curves]
    top = max((float(np.nanmax(curve.values)) for curve in curves), default=0.0) or 1.0
    scale = alt.Scale(domain=[0, top], nice=True)
    y = alt.Y("y:Q", scale=scale, axis=alt.Axis(title=None, format=form, tickCount=4))
    layers: list[alt.Chart] = [_vertical(marks)] if marks else []
    for curve, means in zip(curves, drawn, strict=True):
        if window > 1:
            faint = alt.Chart(_values(points, curve.values)).mark_line(strokeWidth=1, opacity=0.25)
            layers.append(faint.encode(_x(points), y, color=alt.value(curve.color)))
        width = 2.6 if curve.strong else 1.7
        line = alt.Chart(_values(points, means)).mark_line(strokeWidth=width, strokeCap="round", strokeJoin="round")
        layers.append(line.encode(_x(points), y, color=alt.value(curve.color)))
    layers += _ends(points, curves, drawn, top, form, y)
    layers.append(_hover(points, [(curve.name, values) for curve, values in zip(curves, drawn, strict=True)], form))
    return _spec(alt.layer(*layers), HEIGHT, _LABELS)


def areas(points: Points, curves: Sequence[Curve]) -> Spec:
    """Shares that add up to 1, one upon the other, the large ones named where they end."""
    values, names, colors = [], [], []
    ends, below = [], 0.0
    for order, curve in enumerate(curves):
        known = np.nan_to_num(curve.values)
        values += [{"x": x, "y": y, "n": order} for x, y in zip(points.positions, known.tolist(), strict=True)]
        names.append(order)
        colors.append(curve.color)
        last = float(known[-1]) if len(known) else 0.0
        if last >= 0.07:
            label = f"{curve.name} {last:.0%}"
            ends.append({"x": points.positions[-1], "y": 1 - below - last / 2, "t": label, "c": curve.color})
        below += last
    color = alt.Color("n:O", scale=alt.Scale(domain=names, range=colors), legend=None)
    y = alt.Y("y:Q", stack=True, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(title=None, format="%", tickCount=3))
    order = alt.Order("n:O", sort="descending")
    area = (
        alt.Chart(_data(values))
        .mark_area(opacity=0.9, interpolate="step-after")
        .encode(_x(points), y, color, order=order)
    )
    text = _labels(ends).encode(y=alt.Y("y:Q", scale=alt.Scale(domain=[0, 1])))
    hover = _hover(points, [(curve.name, curve.values) for curve in curves], ".1%")
    return _spec(alt.layer(area, text, hover), 150, _LABELS)


def stacks(points: Points, curves: Sequence[Curve], form: str) -> Spec:
    """Bars of parts that add up, one for each point; the largest points are cut off, so that they hide no others."""
    whole = np.sum([np.nan_to_num(curve.values) for curve in curves], axis=0)
    top = max(1.6 * float(np.percentile(whole, 95)), float(np.median(whole))) if len(whole) else 1.0
    top = min(top, float(whole.max())) if len(whole) else top
    values = [
        {"x": x, "y": y, "n": order}
        for order, curve in enumerate(curves)
        for x, y in zip(points.positions, np.nan_to_num(curve.values).tolist(), strict=True)
    ]
    scale = alt.Scale(domain=list(range(len(curves))), range=[curve.color for curve in curves])
    y = alt.Y("y:Q", stack=True, scale=alt.Scale(domain=[0, top or 1.0], clamp=True), axis=_axis(form))
    area = alt.Chart(_data(values)).mark_area(interpolate="step-after", clip=True)
    area = area.encode(_x(points), y, alt.Color("n:O", scale=scale, legend=None), order=alt.Order("n:O"))
    ends, below = [], 0.0
    for curve in curves:
        last = last_value(curve.values)
        middle = min(below + last / 2, top)
        ends.append({"x": points.positions[-1], "y": middle, "t": f"{curve.name}", "c": curve.color})
        below += last
    placed = spread([float(end["y"]) for end in ends], _APART * (top or 1.0) / HEIGHT)
    ends = [{**end, "y": y} for end, y in zip(ends, placed, strict=True)]
    text = _labels(ends).encode(y=alt.Y("y:Q", scale=alt.Scale(domain=[0, top or 1.0])))
    hover = _hover(points, [(curve.name, curve.values) for curve in curves], form)
    return _spec(alt.layer(area, text, hover), HEIGHT, _LABELS)


def intervals(points: Points, looks: Sequence[Interval]) -> Spec:
    """What the gate knew after each batch of a trial; zero is where a challenger is as good as it has to be."""
    values = [
        {
            "x": look.position, "step": look.step, "version": look.version, "y": look.estimate,
            "low": look.lower, "high": look.upper, "c": "var(--good)" if look.promoted else _MUTED,
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
    base = alt.Chart(_data(values)).encode(x=_x(points), tooltip=tip, color=alt.Color("c:N", scale=None, legend=None))
    y = alt.Y("low:Q", axis=_axis("+.2f"))
    zero = alt.Chart(_data([{"y": 0}])).mark_rule(strokeWidth=1.2).encode(y="y:Q", color=alt.value(_INK))
    bars = base.mark_rule(strokeWidth=2.5, opacity=0.55, strokeCap="round").encode(y, y2="high:Q")
    dots = base.mark_point(filled=True, size=42, opacity=1).encode(y="y:Q")
    lasts = {look.version: look for look in looks}
    ends = [
        {"x": look.position, "y": look.upper, "t": f"v{look.version}", "c": "var(--good)" if look.promoted else _MUTED}
        for look in lasts.values()
    ]
    text = alt.Chart(_data(ends)).mark_text(dy=-9, fontSize=12, fontWeight=600)
    named = text.encode(_x(points), alt.Y("y:Q"), text="t:N", color=alt.Color("c:N", scale=None, legend=None))
    return _spec(alt.layer(zero, bars, dots, named), HEIGHT, 24)


def bars(counts: Sequence[tuple[str, float]], form: str) -> Spec:
    """A horizontal bar for each name, the number at its end."""
    values = [{"t": name, "n": order, "y": count} for order, (name, count) in enumerate(counts)]
    sort = alt.EncodingSortField("n")
    name = alt.Y("t:N", sort=sort, axis=None, scale=alt.Scale(paddingInner=0.55, paddingOuter=0.5))
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
    return _spec(alt.layer(bar, named, number), 42 * len(values), 70)


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


def _ends(
    points: Points, curves: Sequence[Curve], drawn: Sequence[Array], top: float, form: str, y: alt.Y
) -> list[alt.Chart]:
    """A dot at the end of each line, and its name and last value beside it."""
    lasts = [last_value(values) for values in drawn]
    if not curves:
        return []
    dots = [
        {"x": points.positions[int(np.flatnonzero(np.isfinite(values))[-1])], "y": last, "c": curve.color}
        for curve, values, last in zip(curves, drawn, lasts, strict=True)
    ]
    dot = alt.Chart(_data(dots)).mark_point(filled=True, size=46, opacity=1)
    placed = spread(lasts, _APART * top / HEIGHT)
    texts = [
        {"x": points.positions[-1], "y": place, "t": curve.name, "v": last, "c": curve.color}
        for curve, place, last in zip(curves, placed, lasts, strict=True)
    ]
    # The value is formatted by the page, so that it looks like those of the axis.
    label = _labels(texts).transform_calculate(t=f"datum.t + ' ' + format(datum.v, '{form}')")
    return [dot.encode(_x(points), y, color=alt.Color("c:N", scale=None, legend=None)), label.encode(y=y)]


def _labels(texts: list[Spec]) -> alt.Chart:
    text = alt.Chart(_data(texts)).mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight=600)
    return text.encode(x=alt.X("x:Q"), text="t:N", color=alt.Color("c:N", scale=None, legend=None))


def _vertical(marks: Sequence[int]) -> alt.Chart:
    rule = alt.Chart(_data([{"x": position} for position in marks])).mark_rule(
        strokeDash=[3, 3], strokeWidth=1.2, opacity=0.8
    )
    return rule.encode(x="x:Q", color=alt.value(_MUTED))


def _hover(points: Points, series: Sequence[tuple[str, Array]], form: str) -> alt.Chart:
    """A line at the point next to the pointer, with all values there."""
    values = [
        {"x": x, "step": step, **{f"s{number}": _number(of[place]) for number, (_, of) in enumerate(series)}}
        for place, (x, step) in enumerate(zip(points.positions, points.steps, strict=True))
    ]
    near = alt.selection_point(nearest=True, on="pointerover", clear="pointerout", fields=["x"], empty=False)
    tip = [alt.Tooltip("step:N", title="batch")]
    tip += [alt.Tooltip(f"s{number}:Q", title=name, format=form) for number, (name, _) in enumerate(series)]
    rule = alt.Chart(_data(values)).mark_rule(strokeWidth=1)
    opacity = alt.condition(near, alt.value(0.6), alt.value(0))
    return rule.encode(x=_x(points), opacity=opacity, color=alt.value(_INK), tooltip=tip).add_params(near)


def _x(points: Points) -> alt.X:
    first, last = points.positions[0], points.positions[-1]
    axis = alt.Axis(title=None, tickCount=6, tickMinStep=1, format="d", grid=False)
    return alt.X("x:Q", scale=alt.Scale(domain=[first, max(last, first + 1)], nice=False), axis=axis)


def _axis(form: str) -> alt.Axis:
    return alt.Axis(title=None, format=form, tickCount=4)


def _values(points: Points, values: Array) -> alt.InlineData:
    pairs = zip(points.positions, values.tolist(), strict=True)
    return _data([{"x": x, "y": y} for x, y in pairs if np.isfinite(y)])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _data(values: list[Spec]) -> alt.InlineData:
    return alt.InlineData(values=values)


def _spec(chart: alt.LayerChart, height: int, right: int) -> Spec:
    """The specification: as wide as its place on the page, in the page's colors."""
    chart = chart.properties(
        width="container", height=height, padding={"left": 2, "right": right, "top": 14, "bottom": 4}
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
