"""Recovery from a planted concept drift: with the reaction to it, without, and with parts of it.

    python -m bench.quality.concept_drift [--quick]

Users and items are in groups, and 85 % of the events stay in the user's group. At one batch users move to other groups
and stay there: all of them, or a third. Each batch is evaluated before it is learned. A model has recovered when the
mean NDCG@10 of three batches is back to 90 % of what it was over the ten batches before the change. The figure is the
number of batches between the change and these three.

The learner reads either as much as it likes of the history or, as behind a long one, only a small share of it per batch
(`budget`). Parts are switched off by their bounds; `fixed` is with all of them off.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from bench.harness.curves import OURS, THEIRS
from bench.harness.generated_stream import numbered, to_batch
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.recommender import OnlineModel
from recsys.stream.plots import INK, PALE

NDCG = "model/ndcg_at_10"
BEFORE, TOGETHER, RECOVERED = 10, 3, 0.9
LOYALTY = 0.85

OFF = {"max_effort": 1.0, "max_learning_rate": 1.0, "max_halvings": 0, "refresh_every_batches": 0}
# Bounds that are not switched off, by the name of what then takes place.
RULES: dict[str, dict[str, Any]] = {
    "fixed": OFF,
    "effort, refresh": {**OFF, "max_effort": 2.0, "refresh_every_batches": 3},
    "halve": {**OFF, "max_halvings": 4},
    "halve, effort": {**OFF, "max_halvings": 4, "max_effort": 2.0},
    "halve, refresh": {**OFF, "max_halvings": 4, "refresh_every_batches": 3},
    "regulated": {},
}


@dataclass(frozen=True)
class PlantedStream:
    """Size of the stream.

    Attributes:
        users, items, groups: how many there are.
        events: in a batch.
        change: the first batch after the change.
        batches: all of them.
    """

    users: int = 2500
    items: int = 1200
    groups: int = 16
    events: int = 1000
    change: int = 30
    batches: int = 70


FULL = PlantedStream()
QUICK = PlantedStream(users=300, items=160, groups=8, events=400, change=25, batches=45)


@dataclass(frozen=True)
class Scenario:
    """What happens: the share of users that change, and what a batch may read (`model.budget`)."""

    name: str
    share: float
    budget: float


SCENARIOS = (
    Scenario("all users change, a small share is read", 1.0, 2.0),
    Scenario("a third of the users change, a small share is read", 1 / 3, 2.0),
    Scenario("all users change, all is read", 1.0, 40.0),
)


@dataclass(frozen=True)
class Course:
    """What one model did with a stream.

    Attributes:
        ndcg: of each batch before it was learned, (batches - first,), from batch `first` on.
        first: number of the first batch that was evaluated.
        read: interactions read to solve rows, a batch on average, from the change on.
        reasons: what was decided, with the number of the batch.
    """

    ndcg: npt.NDArray[np.float64]
    first: int
    read: float
    reasons: list[str]

    def recovery(self, change: int) -> int:
        """Batches from the change until the figure is back; all that there were if it never is."""
        begin = change - self.first
        wanted = RECOVERED * self.ndcg[begin - BEFORE : begin].mean()
        means = np.convolve(self.ndcg[begin:], np.full(TOGETHER, 1 / TOGETHER), "valid")
        back = np.flatnonzero(means >= wanted)
        return int(back[0]) if len(back) else len(self.ndcg) - begin


def planted(shape: PlantedStream, share: float, seed: int) -> list[InteractionBatch]:
    """A stream in which a share of the users move to other groups at `shape.change`."""
    generator = np.random.default_rng(seed)
    before = generator.integers(shape.groups, size=shape.users)
    moves = generator.integers(1, shape.groups, size=shape.users) * (generator.random(shape.users) < share)
    after = (before + moves) % shape.groups
    user_ids, item_ids = numbered("u", shape.users), numbered("i", shape.items)
    activity, popularity = (
        ranks / ranks.sum()
        for ranks in (np.arange(1.0, n + 1) ** -0.6 for n in (shape.users, shape.items // shape.groups))
    )
    batches = []
    for number in range(shape.batches):
        users = generator.choice(shape.users, shape.events, p=activity)
        loyal = generator.random(shape.events) < LOYALTY
        preferred = (after if number >= shape.change else before)[users]
        groups = np.where(loyal, preferred, generator.integers(shape.groups, size=shape.events))
        items = groups + shape.groups * generator.choice(len(popularity), shape.events, p=popularity)
        batches.append(to_batch(users, items, np.full(shape.events, float(number)), user_ids, item_ids))
    return batches


def follow(batches: Sequence[InteractionBatch], settings: Settings, change: int) -> Course:
    """Evaluate and learn a stream batch by batch; before the change only the last batches are evaluated."""
    model, first = OnlineModel(settings), change - BEFORE
    ndcg, read, reasons = [], [], []
    for number, batch in enumerate(batches):
        step = StepId(0, number)
        if number >= first:
            ndcg.append(evaluate(batch, model, {}, settings, step)[NDCG])
        figures = model.update(batch, step)
        read.append(figures["gathered"] + 2 * len(model.history) * figures["full_sweep"])
        reasons += [f"batch {number}: {reason}" for reason in model.decision.reasons]
    return Course(np.array(ndcg), first, float(np.mean(read[change:])), reasons)


def settings_of(scenario: Scenario, rule: str) -> Settings:
    """Settings of a small model under a rule."""
    return Settings.model_validate(
        {
            "device": "cpu",
            "model": {"kind": "als", "factors": 16, "budget": scenario.budget},
            "concept_drift": RULES[rule],
            "evaluation": {"users_per_batch": 300},
            "recommend": {"k": 10, "exclude_seen": False},
        }
    )


def summary(courses: Sequence[Course], change: int) -> dict[str, float]:
    """Medians of what runs of the same rule show."""
    after = change - courses[0].first
    return {
        "recovery": float(np.median([course.recovery(change) for course in courses])),
        "ndcg_after": float(np.median([course.ndcg[after:].mean() for course in courses])),
        "read": float(np.median([course.read for course in courses])),
    }


def picture(panels: Sequence[tuple[str, Sequence[tuple[str, Course]]]], change: int, path: Path) -> Path:
    """Draw NDCG@10 by batch, one panel for each scenario."""
    figure = Figure(figsize=(0.6 + 3.4 * len(panels), 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
    for axes, (title, courses) in zip(every, panels, strict=True):
        for (name, course), color in zip(courses, (THEIRS, OURS), strict=True):
            axes.plot(course.first + np.arange(len(course.ndcg)), course.ndcg, color=color, label=name, linewidth=1.4)
        axes.axvline(change, color=INK, linewidth=0.8, linestyle="--")
        axes.set_title(title, loc="left", color=INK, fontsize=8, fontweight="bold", wrap=True)
        axes.set_xlabel("micro-batch", color=INK, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
        axes.tick_params(colors=INK, length=0, labelsize=8)
        axes.grid(color=PALE, linewidth=0.6)
    every[0].set_ylabel("NDCG@10", color=INK, fontsize=9)
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", frameon=False, labelcolor=INK, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def main() -> None:
    """Measure, print a table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small stream, once")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=Path("docs/concept_drift.png"), help="to write")
    arguments = parser.parse_args()
    shape = QUICK if arguments.quick else FULL
    seeds = range(1 if arguments.quick else 3)
    rows, panels = [], []
    with tqdm(total=len(SCENARIOS) * len(RULES) * len(seeds), unit="run", dynamic_ncols=True) as bar:
        for scenario in SCENARIOS:
            streams = [planted(shape, scenario.share, seed) for seed in seeds]
            courses = dict[str, list[Course]]()
            for rule in RULES:
                for stream in streams:
                    followed = follow(stream, settings_of(scenario, rule), shape.change)
                    courses.setdefault(rule, []).append(followed)
                    bar.update()
                rows.append({"scenario": scenario.name, "rule": rule, **summary(courses[rule], shape.change)})
            panels.append((scenario.name, [(rule, courses[rule][0]) for rule in ("fixed", "regulated")]))

    table = pd.DataFrame(rows).set_index(["scenario", "rule"])
    after = shape.batches - shape.change
    print(f"\n{shape}\nmedians of {len(seeds)} streams; recovery in batches, {after} where it did not come")
    print(table.to_string(formatters={"ndcg_after": "{:.3f}".format, "read": "{:,.0f}".format}))
    print("\ndecisions of the first:")
    print("\n".join(panels[0][1][1][1].reasons))
    print(picture(panels, shape.change, arguments.plot))
    main_case = table.loc[SCENARIOS[0].name, "recovery"]
    print(f"recovery_regulated={main_case['regulated']:g} recovery_fixed={main_case['fixed']:g}")


if __name__ == "__main__":
    main()
