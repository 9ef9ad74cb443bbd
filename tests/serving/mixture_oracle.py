"""The mixture as it is defined, in plain numpy over all users and items: slow, and readable from top to bottom."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.serving.arrays import Lists, PairValues, part, ragged_ranges
from recsys.serving.content import ContentScorer
from recsys.serving.neural import NeuralScorer
from recsys.serving.repeats import RepeatScorer
from recsys.serving.scorers import GROUPS, TrendScorer, group_of
from recsys.serving.sequence import SequenceScorer

LEAST, DRAWN_PAIRS = 1e-3, 5.0


@dataclass(frozen=True)
class OracleCandidates:
    """Candidates of n users, sorted by user, then item; see `recsys.serving.mixture.Examples`."""

    keys: np.ndarray
    owners: np.ndarray
    items: np.ndarray
    groups: np.ndarray
    features: np.ndarray
    opinions: np.ndarray
    dense: list[np.ndarray]
    known_to: list[np.ndarray]


class MixtureOracle:
    """Takes the arrays of a version, scores all items for users by row.

    Where running sessions are known, `situations` (users,) says of whom, and the arrays hold what they have just done.
    """

    def __init__(self, arrays: dict[str, np.ndarray], situations: np.ndarray | None = None) -> None:
        self.situations = situations
        own = {name: part(arrays, name) for name in {key.split(".")[0] for key in arrays if "." in key}}
        self.weights, self.chances, self.draw = arrays["weights"], arrays["chances"], arrays["draw"]
        self.calibration = arrays["calibration"]
        self.depth, self.more = arrays["depth"].tolist()
        self.trend = TrendScorer(own["trend"])
        self.dense: list[Any] = []
        if "als" in own:
            self.dense.append(lambda rows: products(own["als"], rows))
        if "ncf" in own:
            self.dense.append(NeuralScorer(own["ncf"]).score)
        self.similar = own.get("cooccurrence")
        self.sessions = own.get("sessions")
        self.repeats = RepeatScorer(own["repeat"]) if "repeat" in own else None
        self.content = ContentScorer(own["content"]) if "content" in own else None
        self.sequence = SequenceScorer(own["sequence"]) if "sequence" in own else None

    def log_odds(self, rows: np.ndarray, version_rows: np.ndarray | None = None) -> np.ndarray:
        """(n, items): the scores, user by user and item by item; the ranking is drawn by their rows in the version."""
        candidates, behind = self.propose(rows), self.behind(rows)
        drawn = drawn_numbers(self.draw, rows if version_rows is None else version_rows)
        values = self.rankings(candidates)
        names = [*self.trend.overall, *self.dense]
        scores = np.zeros(behind.shape)
        for user, group in enumerate(candidates.groups):
            own = candidates.owners == user
            choice = min((np.cumsum(self.chances[group]) < drawn[user]).sum(), values.shape[1] - 1)
            level, (slope, intercept) = values[own, choice], self.calibration[group, choice]
            if choice > len(names):  # A chance or a count, of which the logarithm is taken.
                level = np.log(np.maximum(level, 0) + 1e-6)
            odds = slope * level + intercept
            scores[user] = odds.min() - 1 - (behind[user].max() - behind[user])
            scores[user, candidates.items[own]] = odds
        return scores

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Candidates from 1 to 2, all different; other items below 1, in the order of the first dense member."""
        candidates = self.propose(rows)
        scores = np.repeat(shrunk(self.trend.score(np.full(1, -1))), len(rows), axis=0)
        for others, informed in zip(candidates.dense[:1], candidates.known_to, strict=False):
            scores[informed] = shrunk(others[informed])
        values = self.rankings(candidates)
        drawn = drawn_numbers(self.draw, rows)[:, None]
        choice = (np.cumsum(self.chances, axis=1)[candidates.groups] < drawn).sum(axis=1)
        chosen = np.minimum(choice, values.shape[1] - 1)[candidates.owners]
        pairs = PairValues(candidates.keys, values[np.arange(len(chosen)), chosen], scores.shape[1])
        counts = np.bincount(pairs.owners, minlength=len(rows))
        scores[pairs.owners, pairs.items] = 2 - ranks_of(pairs) / counts[pairs.owners]
        return scores

    def behind(self, rows: np.ndarray) -> np.ndarray:
        """(n, items) float64: the order behind the candidates, as the first dense member or the trend scores it."""
        scores = np.repeat(self.trend.score(np.full(1, -1)).astype(np.float64), len(rows), axis=0)
        for score in self.dense[:1]:
            others = score(rows)
            scores[others.any(axis=1)] = others[others.any(axis=1)]
        return scores

    def rankings(self, candidates: OracleCandidates) -> np.ndarray:
        """(candidates, rankings): scores of the re-ranker and of each member alone."""
        weights = self.weights[candidates.groups, : candidates.features.shape[1]][candidates.owners]
        return np.column_stack([np.einsum("cf,cf->c", candidates.features, weights), candidates.opinions])

    def propose(self, rows: np.ndarray) -> OracleCandidates:
        """Candidates of users by their row, (n,)."""
        trend, most = self.trend, self.depth + self.more
        known, items = trend.known_rows(rows), trend.overall.shape[1]
        situations = group_of(known) if self.situations is None else self.situations[rows]
        groups, running = situations % len(GROUPS), situations >= len(GROUPS)
        depth = self.depth + np.minimum(known, self.more)
        proposed = [self.leading(np.flatnonzero(groups == group), group, depth) for group in range(len(GROUPS))]
        dense = [score(rows) for score in self.dense]
        known_to = [scores.any(axis=1) for scores in dense]
        best = [best_of_rows(scores, np.where(own, depth, 0)) for scores, own in zip(dense, known_to, strict=True)]
        proposed.extend(ranks.keys for ranks in best)
        if self.similar is not None:
            pairs, rest = chances(self.similar, rows)
            proposed.append(pairs.keys[ranks_of(pairs) < depth[pairs.owners]])
        if self.sessions is not None:
            beside = self.beside(rows)
            both = added_up(
                *np.divmod(np.concatenate([own.keys for own, _ in beside[:2]]), items),
                np.concatenate([own.values for own, _ in beside[:2]]) / 2,
                items,
            )
            place = ranks_of(both)
            chosen = (place < depth[both.owners]) & running[both.owners]
            proposed.append(both.keys[chosen])
            placed = np.where(chosen, place + 1, 0)
        if self.repeats is not None:
            again, facts = self.repeats.repeats(rows)
            proposed.append(again.keys)
        keys = np.unique(np.concatenate(proposed))
        owners, codes = np.divmod(keys, items)
        opinions = list(trend.overall[:, codes])
        features = [*opinions, *trend.segments[groups[owners], :, codes].T, *trend.ages[:, codes]]
        for scores, informed, ranks in zip(dense, known_to, best, strict=True):
            own, rank, told = scores[owners, codes], ranks.at(owners, codes), informed[owners]
            features.append(np.where(told, np.log(np.maximum(own, LEAST)), 0.0))
            features.append(np.where(told, -np.log(np.where(rank > 0, rank, most + 1)), 0.0))
            opinions.append(np.where(told, own, trend.typical[codes]))
        if self.similar is not None:
            opinions.append(pairs.at(owners, codes) + rest[owners] * self.similar["share"][codes])
            features.append(np.log(opinions[-1] + LEAST**2))
        if self.repeats is not None:
            places, found = again.find(owners, codes)
            told = [trend.typical[codes] + 7, *features[len(trend.overall) + trend.segments.shape[1] + 2 :]]
            features.extend(np.where(found, np.append(column, 0.0)[places], 0.0) for column in facts.T)
            features.extend(np.where(found, column, 0.0) for column in told)
            opinions.append(again.at(owners, codes) + self.repeats.share[codes])
        if self.content is not None:
            lengths = np.bincount(owners, minlength=len(rows))
            features.extend(self.content.alike(rows, Lists.of(lengths, codes)))
        if self.sequence is not None:
            lengths = np.bincount(owners, minlength=len(rows))
            features.extend(self.sequence.following(rows, Lists.of(lengths, codes)))
        if self.sessions is not None:
            sides = [own.at(owners, codes) + rest[owners] * self.sessions["share"][codes] for own, rest in beside]
            rank = PairValues(both.keys, placed, items).at(owners, codes)
            told, mean = running[owners], (sides[0] + sides[1]) / 2
            if self.situations is not None:
                levels = -np.log(np.where(rank > 0, rank, most + 1))
                features += [np.where(told, column, 0.0) for column in [*np.log(np.array(sides) + LEAST**2), levels]]
            opinions.append(np.where(told, mean, trend.typical[codes]))
        columns = np.column_stack(features), np.column_stack(opinions)
        return OracleCandidates(keys, owners, codes, situations, *columns, dense, known_to)

    def beside(self, rows: np.ndarray) -> list[tuple[PairValues, np.ndarray]]:
        """What `chances` says of coming after the latest items, of coming before them, and after the last one alone."""
        arrays = {**self.sessions, "neighbors": self.sessions["others"]}
        after, before = (
            {**arrays, "strengths": arrays[side], "totals": arrays["totals"][place]}
            for place, side in enumerate(("after", "before"))
        )
        last = {**after, "recent": after["recent"][:, :1]}
        return [chances(own, rows) for own in (after, before, last)]

    def leading(self, users: np.ndarray, group: int, depth: np.ndarray) -> np.ndarray:
        """Keys of the candidates that the trend generates for users (n,) of a group."""
        items, ranks = self.trend.leaders(group, self.depth + self.more)
        counts = np.searchsorted(ranks, depth[users])
        keys = np.repeat(users, counts) * self.trend.overall.shape[1]
        return keys + items[ragged_ranges(np.zeros_like(counts), counts)]


def products(arrays: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(n, items) inner products in double precision, rounded to float32; zeros for unknown users."""
    users = arrays["user_factors"]
    known = (rows >= 0) & (rows < len(users))
    factors = np.zeros((len(rows), users.shape[1]))
    factors[known] = users[rows[known]]
    return (factors @ arrays["item_factors"].T.astype(np.float64)).astype(np.float32)


def best_of_rows(scores: np.ndarray, counts: np.ndarray) -> PairValues:
    """Ranks, from 1, of the best counts[i] items of each row i; of equal ones the first item is better."""
    items = scores.shape[1]
    order = np.argsort(-scores, axis=1, kind="stable")
    owners, places = np.nonzero(np.arange(items) < np.minimum(counts, items)[:, None])
    keys = owners * items + order[owners, places]
    by_key = np.argsort(keys)
    return PairValues(keys[by_key], places[by_key] + 1, items)


def chances(arrays: dict[str, np.ndarray], rows: np.ndarray) -> tuple[PairValues, np.ndarray]:
    """Probabilities of neighbors of users' latest items, and the weight of the share of any item beside them."""
    known = (rows >= 0) & (rows < len(arrays["recent"]))
    recent = np.zeros((len(rows), arrays["recent"].shape[1]), dtype=np.int64)
    recent[known] = arrays["recent"][rows[known]]
    weights = (recent > 0) * float(arrays["fading"][0]) ** np.arange(recent.shape[1])
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    before, scale = np.maximum(recent - 1, 0), float(arrays["scale"][0])
    weights /= arrays["totals"][before] * scale + DRAWN_PAIRS
    owners, places, slots = np.nonzero((arrays["neighbors"][before] > 0) & (weights > 0)[:, :, None])
    others = before[owners, places]
    found = arrays["strengths"][others, slots] * scale * weights[owners, places]
    rest = np.where(recent.any(axis=1), DRAWN_PAIRS * weights.sum(axis=1), 1.0)
    items = arrays["neighbors"][others, slots].astype(np.int64) - 1
    return added_up(owners, items, found, len(arrays["share"])), rest


def drawn_numbers(draw: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) from 0 to 1, by a hash of seed, clock and row."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for number in (*draw.tolist(), rows):
        mixed ^= np.asarray(number).astype(np.uint64)
        mixed += np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return mixed / 2.0**64


def shrunk(scores: np.ndarray) -> np.ndarray:
    """Scores (n, items) moved to between 0 and 1, in the same order."""
    least, most = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    moved = scores - least
    moved *= (0.999 / np.maximum(most - least, 1e-12)).astype(np.float32)
    return moved


def added_up(owners: np.ndarray, items: np.ndarray, values: np.ndarray, width: int) -> PairValues:
    """From pairs in any order, the values of equal ones added up."""
    keys, places = np.unique(owners * width + items, return_inverse=True)
    return PairValues(keys, np.bincount(places, values, minlength=len(keys)), width)


def ranks_of(pairs: PairValues) -> np.ndarray:
    """(pairs,) rank of each among its owner's, from 0 for the largest value; of equal ones the first item first."""
    order = np.lexsort((-pairs.values, pairs.owners))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.searchsorted(pairs.owners, pairs.owners)
    return ranks
