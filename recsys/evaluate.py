"""Prequential (test-then-train) evaluation of the models on your own history, and clicks on what was shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from recsys.batches import events_per_batch
from recsys.catalogue import present_catalog
from recsys.config import Settings
from recsys.config.settings import as_settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import ConfigError, InputError
from recsys.experiment import arms_of
from recsys.exposure import ClickRate, RankingRates, Shown, rates_by_group
from recsys.frames import given_events, to_frame, to_table
from recsys.model.evaluation.prequential import evaluate
from recsys.model.interactions.described import with_vectors
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.mixture.mixture import Mixture
from recsys.model.recommender import OnlineModel
from recsys.serving import Lists, Ranked
from recsys.words import count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

POPULARITY = "popularity"
# Columns of the table of exposures that rates are made of.
_SHOWN = ("user_id", "list_id", "model_name", "model_version", "ranking", "propensity", "impressions", "clicks")
# One batch in so many, from the first on, only warms up.
WARM_UP_SHARE = 5
_FIGURES = ("ndcg_at_{}", "recall_at_{}", "precision_at_{}", "f1_at_{}", "auc", "coverage_at_{}")
_COLORS = ("#0868ac", "#d98200", "#1b7837", "#762a83", "#74a9cf", "#a6611a", "#01665e", "#000000")


class Live:
    """A model of some kind that learns every batch, for comparison with a model that learns the same batches.

    Args:
        settings: Its settings.
        kind: Its kind, instead of that of the settings.
    """

    def __init__(self, settings: Settings, kind: str) -> None:
        of_kind = settings.model.model_copy(update={"kind": kind})
        self.model = OnlineModel(settings.model_copy(update={"model": of_kind}))

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """Learn a batch; always True, because it is never deferred."""
        self.model.update(batch, step)
        return True

    def ranked(self, user_ids: Sequence[str], items: Vocabulary, k: int, seen: Lists, wanted: Lists) -> Ranked:
        """See `FrozenModel.ranked`; it knows the live items in the same order."""
        rows = self.model.users.lookup(user_ids)
        return self.model.scorer().rank(rows, np.full(len(rows), k), seen, wanted)


@dataclass(frozen=True)
class Prequential:
    """Metrics of each method on batches that it had not learned yet.

    Attributes:
        methods: names; the configured model comes first, popularity last.
        batches: numbers of the evaluated batches.
        k: cutoff of the metrics.
        figures: metrics by method and name, per batch; NaN for a batch without users to evaluate.

    Examples:
        >>> events = {"user_id": ["u1", "u2"] * 10, "item_id": list("aabb") * 5, "event_time": range(10**9, 10**9 + 20)}
        >>> result = prequential(events, {"recommend.k": 1, "recommend.exclude_seen": False}, batches=5)
        >>> result.methods
        ('mixture', 'als', 'trend', 'cooccurrence', 'repeat', 'sessions', 'popularity')
    """

    methods: tuple[str, ...]
    batches: tuple[int, ...]
    k: int
    figures: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def table(self) -> "pd.DataFrame":
        """One row per method: means over the batches, with equal weights.

        Columns `method`, `ndcg_at_K`, `recall_at_K`, `precision_at_K`, `f1_at_K`, `auc`, `coverage_at_K`. Within a
        batch they are means over the evaluated users, except coverage: the share of the catalog on any user's list.
        """
        means = {name: [_mean(self.figures[method][name]) for method in self.methods] for name in self._names}
        frame: pd.DataFrame = to_frame({"method": list(self.methods), **means})
        return frame

    @property
    def by_batch(self) -> "pd.DataFrame":
        """One row per method and batch: `method`, `batch`, and the metrics of `table`."""
        repeated = {"method": np.repeat(self.methods, len(self.batches)), "batch": [*self.batches] * len(self.methods)}
        columns = {
            name: np.concatenate([self.figures[method][name] for method in self.methods]) for name in self._names
        }
        frame: pd.DataFrame = to_frame(repeated | columns)
        return frame

    def plot(self) -> "Figure":
        """Plot trailing means of NDCG@k over the batches.

        Returns:
            A matplotlib figure. A notebook shows it; `figure.savefig("file.png")` saves it.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ModuleNotFoundError as error:
            raise ConfigError(f"a plot needs {error.name}: pip install 'recsys-stream[plots]'") from error
        from recsys.stream.plots import BATCHES_PER_MEAN, INK, trailing_mean

        figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes, window = figure.subplots(), max(1, len(self.batches) // BATCHES_PER_MEAN)
        colors = dict(zip(self.methods, _COLORS, strict=False)) | {POPULARITY: "#8c8c8c"}
        for method in self.methods:
            means = trailing_mean(np.array(self.figures[method][f"ndcg_at_{self.k}"]), window)
            width = 2.4 if method == self.methods[0] else 1.4
            axes.plot(self.batches, means, color=colors[method], label=method, linewidth=width)
        axes.set_ylabel(f"NDCG@{self.k}", color=INK)
        axes.set_xlabel("batch", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=4)
        return figure

    def __repr__(self) -> str:
        """The table as text."""
        lines = [f"{'':14}" + "".join(f"{name.replace('_at_', '@'):>14}" for name in self._names)]
        for method in self.methods:
            means = (_mean(self.figures[method][name]) for name in self._names)
            lines.append(f"{method:14}" + "".join(f"{mean:14.4f}" for mean in means))
        return "\n".join([*lines, f"means over {len(self.batches):,} batches, each evaluated before it was learned"])

    @property
    def _names(self) -> list[str]:
        return [name.format(self.k) for name in _FIGURES]


def prequential(
    events: Any, settings: Settings | Mapping[str, Any] | None = None, batches: int | None = None
) -> Prequential:
    """Evaluate the model, its members and popularity on every batch of a history, before they learn it.

    For the same sample of a batch's users, every method ranks the whole catalog. The rankings are compared with the
    users' interactions in the batch, and then all methods learn it. Cold items cannot be found, but count as missed.
    The first fifth of the batches is a warm-up and is not evaluated.

    Args:
        events: A frame of events as `recsys.fit` takes it.
        settings: As `recsys.fit` takes them. `recommend.k` is the length of the lists, `evaluation.users_per_batch` the
            size of the samples. With `model.kind: mixture` each member is evaluated by itself, too.
        batches: Approximate number of batches that the events are cut into, by time; None: a hundred, or fewer if they
            would have less than a thousand events.

    Returns:
        The metrics: `table`, `by_batch` and `plot()`.

    Raises:
        InputError: see `recsys.fit`; or the events make fewer than 5 batches, or nobody could be measured in them.
        ConfigError: a setting is unknown or wrong.

    Warns:
        InputWarning: rows are left out; says how many, and why.

    Examples:
        >>> events = {"user_id": ["u1", "u2"] * 10, "item_id": list("aabb") * 5, "event_time": range(10**9, 10**9 + 20)}
        >>> prequential(events, {"model.kind": "trend", "recommend.k": 1, "recommend.exclude_seen": False}, batches=5)
                              ndcg@1      recall@1   precision@1          f1@1           auc    coverage@1
        trend                 1.0000        0.5000        1.0000        0.6667        1.0000        0.5000
        popularity            1.0000        0.5000        1.0000        0.6667        1.0000        0.5000
        means over 4 batches, each evaluated before it was learned
    """
    checked = as_settings(settings)
    read = given_events(events, checked)
    if batches is not None and batches < WARM_UP_SHARE:
        raise InputError(f"batches is {batches}: at least {WARM_UP_SHARE} are needed, the first of which warms up")
    size = events_per_batch(len(read)) if batches is None else -(-len(read) // batches)
    parts = list(read.batches(size))
    if len(parts) < WARM_UP_SHARE:
        raise InputError(
            f"{count(len(read), 'event')} make {count(len(parts), 'batch', 'batches')}, {WARM_UP_SHARE} are needed: "
            "give events of more times" + ("" if batches else f", or say how many: batches={WARM_UP_SHARE}")
        )
    main = Live(checked, checked.model.kind)
    learner = main.model.learner
    members = {kind: Live(checked, kind) for kind in learner.members} if isinstance(learner, Mixture) else {}
    methods = (checked.model.kind, *members, POPULARITY)
    measured = dict[int, dict[str, float]]()
    steps = ((StepId(0, number), batch) for number, batch in enumerate(parts))
    told = with_vectors(present_catalog(checked), steps)
    for step, batch in tqdm(told, "prequential", len(parts), unit="batch", dynamic_ncols=True, disable=None):
        if step.batch_id >= len(parts) // WARM_UP_SHARE:
            measured[step.batch_id] = evaluate(batch, main.model, members, checked, step)
        for method in (main, *members.values()):
            method.learn(batch, step)
    if not any(figures.get("evaluated_users") for figures in measured.values()):
        new = " that is new to them" if checked.recommend.exclude_seen else ""
        raise InputError(f"nobody could be measured: no user has an item of positive weight{new}")
    keys = {checked.model.kind: "model", POPULARITY: POPULARITY}
    result = Prequential(methods, tuple(measured), checked.recommend.k, {})
    figures = {
        method: {
            name: [found.get(f"{keys.get(method, method)}/{name}", np.nan) for found in measured.values()]
            for name in result._names
        }
        for method in methods
    }
    return Prequential(methods, result.batches, result.k, figures)


def click_rates(exposures: Any) -> "pd.DataFrame":
    """Click-through rates of the lists that were shown, by version and ranking.

    A mixture draws the ranking that serves a user with known chances. So besides the rate among those who got a ranking
    there is an estimate of what the rate would be if that ranking served everybody, see `exposure.click_rate`.

    Args:
        exposures: A frame with the columns of the table `exposures`, all of it or a part, such as the last weeks.

    Returns:
        `version`, `ranking`, `users`, `impressions`, `clicks`, then `rate` among these users and `rate_for_all`, each
        with `..._lower` and `..._upper`, the ends of its 95 % interval, and `effective_users`, how many users the
        second one is worth. Rates are NaN where fewer than 100 users' worth is known.

    Raises:
        InputError: a column is missing.

    Examples:
        >>> shown = {"user_id": [f"u{n}" for n in range(200)], "list_id": [f"l{n}" for n in range(200)],
        ...          "model_name": ["m"] * 200, "model_version": ["3"] * 200, "ranking": ["als"] * 200,
        ...          "propensity": [0.5] * 200, "impressions": [10] * 200,
        ...          "clicks": [1, 0] * 100}
        >>> click_rates(shown)[["version", "ranking", "clicks", "rate"]].to_dict("records")
        [{'version': 'm/3', 'ranking': 'als', 'clicks': 100, 'rate': 0.05}]
    """
    columns, seen = _shown(exposures)
    known = seen & np.array([chance is not None for chance in columns["propensity"]], dtype=bool)
    pairs = zip(columns["model_name"], columns["model_version"], known.tolist(), strict=True)
    shown = Shown(
        users=Vocabulary().extend(columns["user_id"]),
        versions=[f"{name}/{number}" if told else "" for name, number, told in pairs],
        rankings=[ranking or "" for ranking in columns["ranking"]],
        propensities=np.array([chance or 1.0 for chance in columns["propensity"]]),
        impressions=np.array(columns["impressions"], dtype=np.int64),
        clicks=np.array(columns["clicks"], dtype=np.int64),
    )
    frame: pd.DataFrame = to_frame(_columns_of(list(shown.rates())))
    return frame


def arm_rates(exposures: Any, settings: Settings | Mapping[str, Any]) -> "pd.DataFrame":
    """Click-through rates by arm of the experiment that the settings describe.

    A user counts for the arm that a hash assigns them to, whichever version made their list, so that arms are alike in
    everything but what they were given.

    Args:
        exposures: A frame with the columns of the table `exposures`: what was shown since the experiment began. Lists
            of unknown origin are left out.
        settings: As `recsys.fit` takes them; `experiment.*` is used.

    Returns:
        `arm`, `users`, `impressions`, `clicks`, `rate`, `rate_lower`, `rate_upper` (95 %), one row for each arm. Rates
        are NaN where fewer than 100 users' worth is known.

    Raises:
        InputError: a column is missing.
        ConfigError: a setting is unknown or wrong.

    Examples:
        >>> shown = {"user_id": [f"u{n}" for n in range(400)], "list_id": [f"l{n}" for n in range(400)],
        ...          "model_name": ["m"] * 400, "model_version": ["3"] * 400, "ranking": ["als"] * 400,
        ...          "propensity": [0.5] * 400, "impressions": [10] * 400,
        ...          "clicks": [1] * 400}
        >>> arms = {"control": {"share": 0.5}, "new": {"share": 0.5, "model": "models:/m/4"}}
        >>> arm_rates(shown, {"experiment.arms": arms})[["arm", "rate"]].round(2).to_dict("records")
        [{'arm': 'control', 'rate': 0.1}, {'arm': 'new', 'rate': 0.1}]
    """
    experiment, (columns, seen) = as_settings(settings).experiment, _shown(exposures)
    known = seen & np.array([chance is not None for chance in columns["propensity"]], dtype=bool)
    places, users = arms_of(columns["user_id"], experiment), Vocabulary().extend(columns["user_id"])
    impressions, clicks = (np.array(columns[name], dtype=np.int64) for name in ("impressions", "clicks"))
    arms = rates_by_group(places[known], len(experiment.arms), users[known], impressions[known], clicks[known])
    found: dict[str, list[Any]] = {"arm": list(experiment.arms)}
    found |= {name: [getattr(arm, name) for arm in arms] for name in ("users", "impressions", "clicks")}
    found |= _rate_columns("rate", [arm.observed for arm in arms])
    frame: pd.DataFrame = to_frame(found)
    return frame


def _shown(exposures: Any) -> tuple[dict[str, list[Any]], npt.NDArray[np.bool_]]:
    """Columns of a frame of exposures, and which rows are of lists that were shown: of others only clicks are told."""
    table = to_table(exposures)
    missing = [name for name in _SHOWN if name not in table.column_names]
    if missing:
        raise InputError(f"the exposures have no column '{missing[0]}': give a frame of the table exposures")
    columns = {name: table[name].to_pylist() for name in _SHOWN}
    lists = Vocabulary().extend(columns["list_id"])
    shown = np.bincount(lists, np.array(columns["impressions"], dtype=np.float64)) > 0
    return columns, shown[lists]


def _columns_of(rates: Sequence[RankingRates]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [getattr(one, name) for one in rates] for name in ("version", "ranking", "users", "impressions", "clicks")
    }
    columns |= _rate_columns("rate", [one.observed for one in rates])
    columns |= _rate_columns("rate_for_all", [one.for_all for one in rates])
    columns["effective_users"] = [math.nan if one.for_all is None else one.for_all.effective_users for one in rates]
    return columns


def _rate_columns(name: str, rates: Sequence[ClickRate | None]) -> dict[str, list[float]]:
    """Estimates and the ends of their intervals, NaN where there is none."""
    return {
        f"{name}{end}": [math.nan if rate is None else getattr(rate, what) for rate in rates]
        for end, what in (("", "rate"), ("_lower", "lower"), ("_upper", "upper"))
    }


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    found = [value for value in values if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")
