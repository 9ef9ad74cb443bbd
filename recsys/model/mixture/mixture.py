"""Candidate generation by several members, re-ranking, and a choice among the rankings that follows their NDCG."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.sampling import of_sampled_users
from recsys.model.counts.cooccurrence import CoOccurrence
from recsys.model.counts.counting import CountingLearner
from recsys.model.counts.repeat import Repeat
from recsys.model.counts.sessions import Sessions
from recsys.model.counts.trend import Trend
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, Learner, State
from recsys.model.mixture.choosing import Choosing, situations
from recsys.model.mixture.content import Content
from recsys.model.mixture.live import FoldInBefore, folding_in, live_scorer
from recsys.model.mixture.reranker import LabeledCandidates
from recsys.model.mixture.running import RunningSessions
from recsys.model.neural.ncf import NeuralCf
from recsys.model.neural.sequence import SequenceEncoder
from recsys.serving.arrays import part, prefixed
from recsys.serving.mixture import MixtureScorer
from recsys.serving.proposals import Members
from recsys.serving.scorers import GROUPS, IN_SESSION, group_of

# Users are scored in groups of at most this many (user, item) pairs.
_SCORES_AT_ONCE = 1 << 24
# Last batches that a rebuild learns one by one. The weights of the re-ranker change little after that many.
_REHEARSAL = 20
# With `exclude_seen` a member proposes one more candidate for every item that the user has interacted with, up to
# this multiple of the usual number.
_MORE = 4
# Before the names of what is learned about running sessions.
_RUNNING = "running"
# What was shown and left tells more about a user than what was perhaps never seen.
_LEFT = 3.0

MEMBERS: dict[str, type[Learner]] = {
    "als": IncrementalAls,
    "ncf": NeuralCf,
    "trend": Trend,
    "cooccurrence": CoOccurrence,
    "repeat": Repeat,
    "sessions": Sessions,
    "content": Content,
    "sequence": SequenceEncoder,
}
_DENSE = ("als", "ncf")
# Initial weights of the re-ranker, which also regularize it: about the final weights on five streams of films, clicks
# and purchases. The weight of the trend is divided among its half-lives.
_TREND, _SEGMENTS, _AGE, _IDLE = 0.5, 0.1, -0.1, -0.05
_LEVEL, _RANK, _FOLLOWS = 0.25, 0.1, 0.15
_IN_SESSION = (0.1, 0.1, 0.05, 0.1)
_ALIKE = (0.0, 0.0)
_FOLLOWING = (0.0, 0.0)
_REPEATED = (0.6, 0.2, 0.8, -0.05, 0.3, 0.3, *[0.0] * 10)


class Mixture:
    """Ranks the candidates that its members generate; a `Learner`.

    Before a batch is learned, it is ranked in K ways: by each member alone (the trend counts once for each half-life)
    and by the re-ranker (see `Reranker`). For each group of users (see `group_of`) AdaHedge weights
    these rankings by their NDCG@k so far, and each user is served by one ranking, drawn by these weights. Let G be the
    mean NDCG over the users of a batch. Over T batches, in expectation over the draws,

        sum of G >= max over members of (sum of that member's G) - R,    R <= sum over groups of 2 * gap
                                                                           <= groups * (sqrt(T ln K) + 4/3 ln K + 2)

    for any stream. This is the regret of `AdaHedge`, for each group against its own best ranking. The metric `regret`
    is the first of these bounds; it is far smaller than the second where one ranking stays best.

    A user may also be served while a session runs, of which the model has not learned: with recent items (see
    `MixtureScorer`). What comes next is then another question, so its weights and experts are learned apart, from what
    users did last in a batch given what they did before in it; and only then the member `sessions` has a say.

    Args:
        settings: The sections model (mixture, and those of the members), recommend, evaluation (users per batch) and
            staleness, and the keys device and seed, are used.

    Raises:
        ConfigError: the device is not there.
    """

    rehearsal = _REHEARSAL

    def __init__(self, settings: Settings) -> None:
        self._settings, own = settings, settings.model.mixture
        # With `exclude_seen` items that a user has interacted with are never recommended again.
        left_out = {"repeat"} if settings.recommend.exclude_seen else set()
        self._names = [name for name in MEMBERS if name in own.members and name not in left_out]
        self.members: dict[str, Learner] = _taught({name: MEMBERS[name](settings) for name in self._names})
        rankings = self._rankings()
        # For users about whom no more is known than what was learned, and for those whose running session is known.
        plain, running = self._starts()
        self._plain = Choosing(settings, [name for name in rankings if name != "sessions"], plain, len(GROUPS))
        self._running = Choosing(settings, rankings, running, 1)
        # Users and items that the members know.
        self._users, self._items = 0, 0
        # What ranks as things are; None since something was learned.
        self._made: MixtureScorer | None = None

    @property
    def rankings(self) -> list[str]:
        """Names of the rankings that may serve a user whose running session is not known."""
        return self._plain.rankings

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: The batch; an empty one changes nothing.
            history: Everything seen, the batch included.
            step: Its generation and number.
            decision: Passed on to the members.

        Returns:
            `mixture/GROUP/RANKING`: probability that a user of the group is served by the ranking from now on.
            `mixture/ndcg/RANKING`: NDCG@k of each ranking on a sample of the batch's users, before it was learned;
            `mixture/ndcg`: its expectation over the drawn rankings. `mixture/regret`: see above.
            `mixture/in_session/RANKING` and `mixture/in_session_ndcg`: the same for running sessions, all users alike.
            And the metrics of the members.

        Raises:
            SolveError: the equations of a member have no finite solution.
        """
        if not len(batch):
            return {}
        ranked = self._rank(batch, history, step) if self._items else None
        running = self._rank_running(batch, history, step) if self._items else None
        self._made, figures = None, dict[str, float]()
        # What was ranked before the batch is all that the choice learns from, so the members need not wait for it.
        with ThreadPoolExecutor(1) as beside:
            chosen = beside.submit(self._choose, ranked, running)
            for member in self.members.values():
                figures |= member.update(batch, history, step, decision)
            figures |= chosen.result()
        self._users, self._items = batch.user_count, batch.item_count
        for groups, choosing in ((GROUPS, self._plain), ((IN_SESSION,), self._running)):
            for group, experts in zip(groups, choosing.experts, strict=True):
                chances = zip(choosing.rankings, experts.weights.tolist(), strict=True)
                figures |= {f"mixture/{group}/{ranking}": chance for ranking, chance in chances}
        return figures | {"mixture/regret": sum(experts.regret_bound() for experts in self._plain.experts)}

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """Take a batch into the members."""
        self._made = None
        for member in self.members.values():
            member.absorb(batch, history, step)
        self._users, self._items = batch.user_count, batch.item_count

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`; the re-ranker and the weights of the rankings stay."""
        self._made = None
        for member in self.members.values():
            member.keep(kept, history)
        self._users, self._items = len(kept.users), len(kept.items)

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """Retrain the members; the re-ranker and the weights of the rankings stay."""
        self._made, figures = None, dict[str, float]()
        for member in self.members.values():
            figures |= member.refit(history, step)
        return figures

    def score(self, users: IntArray) -> torch.Tensor:
        """See `Learner`; the scores are those of `MixtureScorer`."""
        return torch.from_numpy(self.scorer().score(users))

    def scorer(self) -> MixtureScorer:
        """The scorer of the members as they are now; made once, until something is learned."""
        if self._made is None:
            dense = {name: live_scorer(self.members[name], self._items) for name in _DENSE if name in self.members}
            others: dict[str, Any] = {
                name: member.scorer()
                for name, member in self.members.items()
                if isinstance(member, CountingLearner | SequenceEncoder)
            }
            self._made = MixtureScorer(self._arrays(), Members(dense, **others))
        return self._made

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`: the scores of the first member, which needs no ranking of all items."""
        return self.members[self._names[0]].score_pairs(users, items)

    def state(self) -> State:
        """See `Learner`."""
        state = self._plain.state() | prefixed(self._running.state(), _RUNNING)
        state["known"] = np.array([self._users, self._items])
        for name, member in self.members.items():
            state |= prefixed(member.state(), name)
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "Mixture":
        """See `Learner`."""
        learner = cls(settings)
        members: dict[str, Learner] = {
            name: MEMBERS[name].from_state(settings, part(state, name)) for name in learner._names
        }
        learner.members = _taught(members)
        own = {name: array for name, array in state.items() if "." not in name}
        learner._plain.restore(own)
        learner._running.restore(part(state, _RUNNING))
        learner._users, learner._items = (int(count) for count in state["known"])
        return learner

    def served(self, history: History) -> State:
        """The arrays of `MixtureScorer.of`."""
        arrays = {name: array.copy() for name, array in self._arrays().items()}
        for name, member in self.members.items():
            arrays |= prefixed(member.served(history), name)
        return arrays

    def _rank(self, batch: CodedBatch, history: History, step: StepId) -> "_Ranked | None":
        """Rank a sample of the users of a batch that is not yet learned; None if there are none."""
        users, interacted, wanted = self._sampled(batch, step)
        if not len(users):
            return None
        scorer, size = self.scorer(), max(1, _SCORES_AT_ONCE // self._items)
        rows = np.where(users < self._users, users, -1)
        left = np.sort(batch.left_users * batch.item_count + batch.left_items)
        parts = []
        for begin in range(0, len(users), size):
            found = scorer.examples(rows[begin : begin + size])
            owners = found.owners + begin
            pairs = users[owners] * batch.item_count + found.items
            relevant = np.isin(pairs, interacted, kind="sort")
            costs = np.where(np.isin(pairs, left, kind="sort"), _LEFT, 1.0)
            open_ = np.ones(len(owners), dtype=bool)
            if self._settings.recommend.exclude_seen:
                # The history already holds the batch, so relevant items count as seen there.
                open_ = relevant | ~history.has_pairs(users[owners], found.items)
            parts.append([array[open_] for array in (found.features, owners, relevant, costs, found.rankings)])
        features, owners, relevant, costs, scores = (
            columns[0] if len(columns) == 1 else np.concatenate(columns) for columns in zip(*parts, strict=True)
        )
        examples = LabeledCandidates.labeled(features, owners, relevant, costs, wanted, self._settings.recommend.k)
        return _Ranked(group_of(self._trend().rows_of(users)), examples, scores[:, : len(self._plain.rankings)])

    def _rank_running(self, batch: CodedBatch, history: History, step: StepId) -> "_Ranked | None":
        """The same for running sessions: what some users did last in the batch, given what they did before in it."""
        running = RunningSessions.of(batch, self._items, self._settings, step)
        users, given, wanted = running.users, running.given, np.ones(len(running.users), dtype=np.int64)
        if not len(users):
            return None
        scorer, als = self.scorer(), self.members.get("als")
        if isinstance(als, IncrementalAls):
            folded = folding_in(scorer.dense["als"], FoldInBefore(als, users, batch, history))
            scorer = scorer.with_dense({**scorer.dense, "als": folded})
        scorer = scorer.with_recent(np.where(users < self._users, users, -1), given)
        found = scorer.examples(np.arange(len(users)))
        relevant = found.items == running.targets[found.owners]
        open_ = np.ones(len(found.owners), dtype=bool)
        if self._settings.recommend.exclude_seen:
            open_ = relevant | ~history.has_pairs(users[found.owners], found.items)
        features, owners, scores = found.features[open_], found.owners[open_], found.rankings[open_]
        costs = np.ones(len(owners))
        examples = LabeledCandidates.labeled(
            features, owners, relevant[open_], costs, wanted, self._settings.recommend.k
        )
        return _Ranked(np.zeros_like(users), examples, scores)

    def _choose(self, ranked: "_Ranked | None", running: "_Ranked | None") -> dict[str, float]:
        """Update the re-rankers and the weights of the rankings; returns the NDCG of each, and its expectation."""
        figures: dict[str, float] = {}
        if ranked is not None:
            expected, means = self._plain.learn(*ranked)
            figures["mixture/ndcg"] = expected
            figures |= {
                f"mixture/ndcg/{name}": mean for name, mean in zip(self._plain.rankings, means.tolist(), strict=True)
            }
        self._running.follow(self._plain)
        if running is not None:
            figures["mixture/in_session_ndcg"], _ = self._running.learn(*running)
        return figures

    def _sampled(self, batch: CodedBatch, step: StepId) -> tuple[IntArray, IntArray, IntArray]:
        """Sampled users (n,), their relevant pairs as ascending user * items + item, and the count of each user."""
        liked = batch.weights > 0
        if self._settings.recommend.exclude_seen:
            liked &= batch.new_pairs
        liked &= of_sampled_users(batch.users, batch.weights, self._settings, step)
        keys = np.sort(batch.users[liked] * batch.item_count + batch.items[liked])
        users, wanted = np.unique(keys // batch.item_count, return_counts=True)
        return users, keys, wanted

    def _trend(self) -> Trend:
        trend = self.members["trend"]
        assert isinstance(trend, Trend)
        return trend

    def _arrays(self) -> State:
        own, exclude_seen = self._settings.model.mixture, self._settings.recommend.exclude_seen
        return {
            **situations(self._plain, self._running),
            "draw": np.array([self._settings.seed, int(self._trend().clock)]),
            "depth": np.array([own.candidates, _MORE * own.candidates if exclude_seen else 0]),
        }

    def _starts(self) -> tuple[FloatArray, FloatArray]:
        """(features,) initial weights of the re-ranker, in the order of the features of `MixtureScorer`.

        For users of whom no running session is known, and for the others, about whom `sessions` has a say.
        """
        own = self._settings.model.mixture
        start = [_TREND / len(own.half_lives)] * len(own.half_lives)
        start += [_SEGMENTS / max(len(own.segment_half_lives), 1)] * len(own.segment_half_lives) + [_AGE, _IDLE]
        beside = [_LEVEL, _RANK] * sum(name in self._names for name in _DENSE)
        beside += [_FOLLOWS] * ("cooccurrence" in self._names)
        start += beside
        # For own items the trend and these count as they do for all, to begin with.
        start += [*_REPEATED, 0.0, *np.zeros(len(beside))] * ("repeat" in self._names)
        start += [*_ALIKE] * ("content" in self._names)
        start += [*_FOLLOWING] * ("sequence" in self._names)
        return np.array(start), np.array(start + [*_IN_SESSION] * ("sessions" in self._names))

    def _rankings(self) -> list[str]:
        """Names of the rankings, in the order of `Examples.rankings`."""
        lengths = [f"trend_{length:g}" for length in self._settings.model.mixture.half_lives]
        others = [name for name in (*_DENSE, "cooccurrence", "repeat", "sessions") if name in self._names]
        return ["reranker", *lengths, *others]


class _Ranked(NamedTuple):
    """Users of a batch as they were ranked before it was learned.

    Attributes:
        groups: (users,) the group of each.
        examples: Their candidates.
        scores: (candidates, rankings) what the rankings made of them.
    """

    groups: IntArray
    examples: LabeledCandidates
    scores: FloatArray


def _taught(members: dict[str, Learner]) -> dict[str, Learner]:
    """The members; the networks have the member `als`, which comes before them, as their teacher."""
    teacher = members.get("als")
    for network in members.values():
        if isinstance(network, NeuralCf | SequenceEncoder) and isinstance(teacher, IncrementalAls):
            network.borrow(teacher)
    return members
