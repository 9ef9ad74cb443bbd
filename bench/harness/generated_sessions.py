"""A generated stream of sessions, in which order counts: what follows an item, and what a session is about."""

import numpy as np
import pandas as pd

from bench.harness.generate import zipf_codes

_TOPICS = 60
# Seconds between two items of a session, on average, and between the starts of two sessions.
_WITHIN, _BETWEEN = 40.0, 12.0
_MEAN_LENGTH = 4.5
# Shares of the next items that follow from the last one, and that belong to the topic of the session.
_FOLLOWS, _OF_TOPIC = 0.35, 0.5
# Sessions after which the items of a topic have all become others.
_RENEWED_AFTER = 25_000


def generated_sessions(sessions: int, users: int = 4_000, items: int = 3_000, seed: int = 0) -> pd.DataFrame:
    """Events of so many sessions: columns user, item (text), weight, time (seconds), in the order of time.

    A session has a topic, which is half of the time one of its user's two. An item leads to one of three others of its
    topic with given chances; else the next one is popular within the topic, or anywhere. What is popular moves on.
    """
    generator = np.random.default_rng(seed)
    per_topic = items // _TOPICS
    follows = generator.integers(0, per_topic, (items, 3))
    starts = np.cumsum(generator.exponential(_BETWEEN, sessions))
    user = zipf_codes(generator, sessions, users, exponent=0.8)
    own = np.where(generator.random(sessions) < 0.5, user % _TOPICS, (7 * user + 3) % _TOPICS)
    topic = np.where(generator.random(sessions) < 0.5, own, generator.integers(0, _TOPICS, sessions))
    lengths = generator.geometric(1 / _MEAN_LENGTH, sessions)
    moved = np.arange(sessions) * per_topic // _RENEWED_AFTER
    rows = []
    for session, length in enumerate(lengths.tolist()):
        ranks = (zipf_codes(generator, length, per_topic, exponent=1.2) + moved[session]) % per_topic
        anywhere = zipf_codes(generator, length, items, exponent=0.9)
        kinds, ways = generator.random(length), generator.choice(3, length, p=(0.6, 0.3, 0.1))
        times = starts[session] + np.cumsum(generator.exponential(_WITHIN, length))
        last = int(topic[session]) * per_topic + int(ranks[0])
        for place in range(length):
            if place and kinds[place] < _FOLLOWS:
                last = last // per_topic * per_topic + int(follows[last, ways[place]])
            elif place and kinds[place] > _FOLLOWS + _OF_TOPIC:
                last = int(anywhere[place])
            elif place:
                last = int(topic[session]) * per_topic + int(ranks[place])
            rows.append((int(user[session]), last, times[place]))
    drawn = pd.DataFrame(rows, columns=["user", "item", "time"]).sort_values("time", kind="stable", ignore_index=True)
    named = {"user": "u" + drawn["user"].astype(str), "item": "i" + drawn["item"].astype(str)}
    return pd.DataFrame({**named, "weight": 1.0, "time": drawn["time"] + 1.7e9})
