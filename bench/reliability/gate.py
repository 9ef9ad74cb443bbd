"""Streams that are poisoned, and streams that are not: what does the gate promote?

    python -m bench.reliability.gate [--quick]

Each stream is small and generated: users and items in groups. A champion is registered, then more batches are learned,
then a challenger is registered and tried on the batches that follow, by the gate of the jobs with its default settings.
In a poisoned stream the batches before the challenger, or those of the trial, too, are attacked: by bots, by floods of
events, by flipped labels, by one batch right before the registration, or slowly, over several challengers in a row.

What the versions are truly worth is measured afterward, on honest users and on batches that no trial has seen. A
promotion is bad if the version has lost more than `gate.tolerance` of the NDCG of the champion that was there before
the attack. A false reject is a version of a clean stream that is not promoted, whether it was rejected or has expired.

Lines say, for every kind of stream, how many there were, how many of the challengers were truly worse, how the trials
ended, what the promoted ones and the others have lost (medians; negative is a gain), and how many promotions the watch
over a new champion took back on the batches after the trial, when the attack was over. The power is the share of
clean challengers that are promoted. The last line has what the gate is held to. `--quick` runs a quarter of the kinds,
and a tenth of the clean streams.

No gate can see an attack in which those whom it measures are the attackers: accounts that the champion knows, taken
over, or a feed that records likes as dislikes for as long as the trial lasts. They look like users whose preferences
have changed, for as long as the attack lasts. Such streams are listed by themselves and do not count in the last line.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from bench.reliability.attacks import PURCHASE, VIEW, Row, as_batch, many, named
from recsys.config import Settings
from recsys.contracts import StepId, TrialKey
from recsys.model.evaluation.gate import PASSED, REJECTED
from recsys.model.evaluation.prequential import evaluate_users
from recsys.model.evaluation.rivals import Rivals
from recsys.model.evaluation.trial import CHALLENGER, CHAMPION, PREVIOUS, ChampionWatch, Trial, trial_batch
from recsys.model.recommender import OnlineModel
from recsys.serving import Served

USERS, ITEMS, GROUPS = 800, 180, 6
EVENTS = 1_200
WARM, LEARNED, TRUTH = 10, 6, 4  # Batches before the champion, before the challenger, and after the trial.
CLEAN = 100
SLOW_TRIALS = 4  # Challengers in a row in a slow attack.
SETTINGS = Settings.model_validate(
    {"device": "cpu", "model": {"factors": 16}, "recommend": {"k": 10, "exclude_seen": False}}
)
_AT = datetime(2026, 1, 1, tzinfo=UTC)
# What it does to a batch: the batch's honest rows, how far the attack is (0 to 1), and randomness.
Attack = Callable[[list[Row], float, np.random.Generator], list[Row]]


@dataclass(frozen=True)
class Script:
    """A kind of stream.

    Attributes:
        name: what it is.
        attack: what is done to a batch.
        from_share: share of the batches before the challenger after which it begins: 0 for all of them.
        goes_on: whether it goes on while the challenger is on trial.
        trials: challengers in a row.
        drift: share of the users that change their group with every batch.
    """

    name: str
    attack: Attack | None = None
    from_share: float = 0.0
    goes_on: bool = False
    trials: int = 1
    drift: float = 0.0


@dataclass
class StreamOutcome:
    """What became of a stream.

    Attributes:
        verdicts: of its trials.
        losses: share of the first champion's NDCG that the promoted versions have lost.
        held_back: the same of the versions that were not promoted.
        batches: batches that the promotions took.
        sent_back: for each promotion, whether the watch over the new champion went back to the version before.
    """

    verdicts: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    held_back: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    sent_back: list[bool] = field(default_factory=list)


def bots(accounts: int, items: int, times: int, weight: float = PURCHASE) -> Attack:
    """New accounts push the least popular items."""

    def attack(rows: list[Row], _: float, draw: np.random.Generator) -> list[Row]:
        return [*rows, *many(named("bot", accounts), named("i", ITEMS)[-items:], weight, times)]

    return attack


def taken_over(share: float, items: int, times: int) -> Attack:
    """Accounts of honest users push the least popular items beside what their users do."""

    def attack(rows: list[Row], _: float, draw: np.random.Generator) -> list[Row]:
        users = [f"u{user}" for user in range(USERS) if user % 100 < 100 * share]
        return [*rows, *many(users, named("i", ITEMS)[-items:], PURCHASE, times)]

    return attack


def flipped(share: float, times: int = 1) -> Attack:
    """The items of events are mixed up, as by a join on the wrong key; the share grows with the attack."""

    def attack(rows: list[Row], far: float, draw: np.random.Generator) -> list[Row]:
        rows = rows * times
        wrong = draw.random(len(rows)) < share * far
        items = draw.integers(ITEMS, size=len(rows))
        return [
            (user, f"i{item}" if is_wrong else was, PURCHASE if is_wrong else weight, events)
            for (user, was, weight, events), is_wrong, item in zip(rows, wrong, items, strict=True)
        ]

    return attack


def swapped(times: int = 1) -> Attack:
    """The users of events are mixed up, and each event comes so many times, with another user each time."""

    def attack(rows: list[Row], _: float, draw: np.random.Generator) -> list[Row]:
        users = draw.integers(USERS, size=times * len(rows)).tolist()
        return [(f"u{user}", *row[1:]) for user, row in zip(users, rows * times, strict=True)]

    return attack


def turned_round(weight: float) -> Attack:
    """What users like is recorded as disliked, and what the others like as bought."""

    def attack(rows: list[Row], _: float, draw: np.random.Generator) -> list[Row]:
        turned = [(user, was, -abs(given) * weight, events) for user, was, given, events in rows]
        other = [(user, f"i{(int(was[1:]) + 3) % ITEMS}", PURCHASE * weight, 1) for user, was, _, _ in rows]
        return [*turned, *other]

    return attack


SCRIPTS = [
    Script("100 bots push 10 items", bots(100, 10, 20)),
    Script("400 bots push 20 items, and go on", bots(400, 20, 2), goes_on=True),
    Script("1,000 bots push 10 items, and go on", bots(1_000, 10, 2), goes_on=True),
    Script("2,000 bots push 20 items, and go on", bots(2_000, 20, 5), goes_on=True),
    Script("10 % of the accounts are taken over", taken_over(0.1, 20, 5)),
    Script("20 % of the accounts are taken over", taken_over(0.2, 20, 5)),
    Script("40 % of the accounts are taken over", taken_over(0.4, 40, 2)),
    Script("a flood: 5 clients buy 30 items", bots(5, 30, 2_000)),
    Script("a flood: 200 clients buy everything", bots(200, ITEMS, 20)),
    Script("labels: half of the items are mixed up", flipped(0.5)),
    Script("labels: most items are mixed up", flipped(0.7)),
    Script("labels: nearly all items are mixed up", flipped(0.9)),
    Script("labels: all are, and go on", flipped(1.0), goes_on=True),
    Script("labels: half are, and go on", flipped(0.5), goes_on=True),
    Script("labels: users are mixed up", swapped()),
    Script("labels: likes are dislikes", turned_round(1.0)),
    Script("labels: likes are heavy dislikes", turned_round(10.0)),
    Script("a flood of events of mixed users", swapped(10)),
    Script("a flood of events of mixed items", flipped(0.8, 10)),
    Script("one batch before: likes are dislikes", turned_round(5.0), from_share=0.99),
    Script("one batch before: mixed up, 20 times", flipped(1.0, 20), from_share=0.99),
    Script("one batch before: users mixed up, 20 times", swapped(20), from_share=0.99),
    Script("one batch before: 1,000 bots", bots(1_000, 10, 20), from_share=0.99),
    Script("one batch before: half the accounts", taken_over(0.5, 30, 20), from_share=0.99),
    Script("slowly: more and more are mixed up", flipped(0.6), trials=SLOW_TRIALS),
    Script("slowly: nearly all are mixed up in the end", flipped(1.0), trials=SLOW_TRIALS),
    Script("slowly, and on through the trials", flipped(0.8), goes_on=True, trials=SLOW_TRIALS),
]
UNSEEN = [
    Script("10 % are taken over, and go on", taken_over(0.1, 20, 5), goes_on=True),
    Script("30 % are taken over, and go on", taken_over(0.3, 5, 5), goes_on=True),
    Script("labels: likes are dislikes, and go on", turned_round(1.0), goes_on=True),
]
QUIET = [Script("clean"), Script("clean, preferences drift", drift=0.01)]


class PoisonedStream:
    """A generated stream and the model that learns from it.

    Args:
        script: what happens to it.
        seed: of all random choices.
    """

    def __init__(self, script: Script, seed: int) -> None:
        self.script = script
        self.model = OnlineModel(SETTINGS)
        self.number = -1
        self._draw = np.random.default_rng([seed, len(script.name)])
        self._groups = np.arange(USERS) % GROUPS

    def rows(self, far: float = 0.0) -> list[Row]:
        """Events of one batch, attacked if the attack has got anywhere."""
        moving = self._draw.random(USERS) < self.script.drift
        self._groups = np.where(moving, self._draw.integers(GROUPS, size=USERS), self._groups)
        users = np.minimum(self._draw.integers(USERS, size=EVENTS), self._draw.integers(USERS, size=EVENTS))
        other = self._draw.integers(GROUPS, size=EVENTS)
        groups = np.where(self._draw.random(EVENTS) < 0.8, self._groups[users], other)
        places = np.minimum(self._draw.geometric(0.08, size=EVENTS) - 1, ITEMS // GROUPS - 1)
        bought = self._draw.random(EVENTS) < 0.2
        honest = [
            (f"u{user}", f"i{group + GROUPS * place}", PURCHASE if buys else VIEW, 1)
            for user, group, place, buys in zip(users, groups, places, bought, strict=True)
        ]
        return honest if self.script.attack is None or far <= 0 else self.script.attack(honest, far, self._draw)

    def learn(self, batches: int, far: Sequence[float] = ()) -> None:
        """Learn some batches."""
        for place in range(batches):
            self.number += 1
            rows = self.rows(far[place] if far else 0.0)
            self.model.update(as_batch(rows, self.number), StepId(0, self.number))

    def tried(self, challenger: Served, champion: Served, far: float) -> Trial:
        """Try a challenger on the batches that follow, beside the champion."""
        trial = Trial(TrialKey("bench", "2", "1"), SETTINGS.gate)
        self._measure(trial, {CHALLENGER: challenger, CHAMPION: champion}, far)
        return trial

    def falls_behind(self, champion: Served, before: Served) -> bool:
        """Watch a new champion on the batches that follow, when the attack is over."""
        watch = ChampionWatch(TrialKey("bench", "1", "2"), SETTINGS.gate)
        self._measure(watch, {CHAMPION: champion, PREVIOUS: before}, 0.0)
        return watch.result.verdict == REJECTED

    def _measure(self, trial: Trial | ChampionWatch, versions: dict[str, Served], far: float) -> None:
        """Let batches follow until it is decided."""
        rivals = Rivals(versions)
        while not trial.result.decided:
            self.number += 1
            batch, step = as_batch(self.rows(far), self.number), StepId(0, self.number)
            evaluation = evaluate_users(batch, self.model, rivals, SETTINGS, step)
            measured = trial_batch(trial.key, evaluation, rivals, step, _AT, trial.measured_as)
            assert measured is not None
            trial.add(measured, evaluation.figures)
            self.model.update(batch, step)

    def worth(self, versions: dict[str, Served]) -> dict[str, float]:
        """Mean NDCG of versions for honest users, on batches that are seen by nobody else."""
        rivals, sums = Rivals(versions), Counter[str]()
        for _ in range(TRUTH):
            self.number += 1
            batch = as_batch(self.rows(), self.number)
            everybody = SETTINGS.model_copy(
                update={"evaluation": SETTINGS.evaluation.model_copy(update={"users_per_batch": USERS})}
            )
            found = evaluate_users(batch, self.model, rivals, everybody, StepId(0, self.number)).ndcg
            sums.update({name: float(found[name].mean()) / TRUTH for name in versions})
        return dict(sums)


def run(script: Script, seed: int) -> StreamOutcome:
    """One stream from its beginning to the end of its last trial."""
    stream, outcome = PoisonedStream(script, seed), StreamOutcome()
    stream.learn(WARM)
    first = champion = stream.model.served()
    for number in range(script.trials):
        begin, end = number / script.trials, (number + 1) / script.trials
        shares = np.linspace(begin if script.trials > 1 else 1.0, end, LEARNED).tolist()
        attacked = [far if place >= int(script.from_share * LEARNED) else 0.0 for place, far in enumerate(shares)]
        stream.learn(LEARNED, attacked if script.attack is not None else ())
        challenger = stream.model.served()
        trial = stream.tried(challenger, champion, end if script.goes_on else 0.0)
        outcome.verdicts.append(trial.result.verdict)
        if trial.result.verdict == PASSED:
            outcome.batches.append(trial.looks)
            outcome.sent_back.append(stream.falls_behind(challenger, champion))
        if script.attack is None:
            return outcome
        worth = stream.worth({"first": first, "challenger": challenger})
        loss = 1 - worth["challenger"] / worth["first"]
        if trial.result.verdict == PASSED:
            outcome.losses.append(loss)
            champion = champion if outcome.sent_back[-1] else challenger
        else:
            outcome.held_back.append(loss)
    return outcome


def line(name: str, outcomes: Sequence[StreamOutcome]) -> str:
    """What became of streams of one kind."""
    losses = [loss for outcome in outcomes for loss in outcome.losses]
    held = [loss for outcome in outcomes for loss in outcome.held_back]
    worse = sum(loss > SETTINGS.gate.tolerance for loss in [*losses, *held])
    verdicts = Counter(verdict for outcome in outcomes for verdict in outcome.verdicts)
    counts = " ".join(f"{verdicts[verdict]:>8}" for verdict in ("passed", "rejected", "expired"))
    medians = " ".join(f"{statistics.median(some):>8.3f}" if some else f"{'–':>8}" for some in (losses, held))
    back = sum(went for outcome in outcomes for went in outcome.sent_back)
    return f"{name:44} {len(outcomes):>7} {worse:>6} {counts} {medians} {back:>8}"


def listed(scripts: Sequence[Script], seeds: int) -> list[StreamOutcome]:
    """Run streams of several kinds, and print a line for each kind."""
    every = []
    for script in scripts:
        outcomes = [run(script, seed) for seed in range(seeds)]
        print(line(script.name, outcomes), flush=True)
        every += outcomes
    return every


def main(clean: int = CLEAN, scripts: Sequence[Script] = SCRIPTS, unseen: Sequence[Script] = UNSEEN) -> None:
    """Run all streams and print what became of them."""
    began = time.perf_counter()
    print(f"{'streams':44} {'number':>7} {'worse':>6} ", end="")
    print(" ".join(f"{word:>8}" for word in ("passed", "rejected", "expired", "loss", "held", "back")))
    poisoned, quiet = listed(scripts, 1), listed(QUIET, clean // len(QUIET))
    if unseen:
        print("what no gate can see, and does not count below; the watch may:")
        listed(unseen, 1)
    bad = sum(loss > SETTINGS.gate.tolerance for outcome in poisoned for loss in outcome.losses)
    lost = sum(verdict != PASSED for outcome in quiet for verdict in outcome.verdicts) / len(quiet)
    took = statistics.median([batches for outcome in quiet for batches in outcome.batches] or [float("nan")])
    seconds = time.perf_counter() - began
    worse = sum(max([*one.losses, *one.held_back]) > SETTINGS.gate.tolerance for one in poisoned)
    kinds = f"{len(poisoned)} poisoned streams, {worse} with a version that is worse, and {len(quiet)} clean ones"
    print(f"{kinds} in {seconds:.0f} s; power {1 - lost:.3f}")
    back = [went for outcome in quiet for went in outcome.sent_back]
    print(f"{sum(back)} of {len(back)} promotions in clean streams were taken back")
    print(f"bad_promotions={bad} false_rejects={lost:.3f} time_to_promote_batches={took:g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the streams")
    if parser.parse_args().quick:
        main(CLEAN // 10, SCRIPTS[::4], unseen=())
    else:
        main()
