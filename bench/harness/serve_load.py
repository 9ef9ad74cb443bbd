"""What locust does to the server: requests of four kinds at random times, each noted with its time and its answer.

`python -m locust -f bench/harness/serve_load.py`, started by `bench.speed.serve`, which sets the variables. A module of
its own, because locust replaces Python's sockets where it is imported.
"""

import json
import os
import random
import re
import time
from typing import Any

from locust import FastHttpUser, events, task

RATE = float(os.environ["LOAD_RATE_PER_CLIENT"])
USERS, ITEMS = int(os.environ["LOAD_USERS"]), int(os.environ["LOAD_ITEMS"])
NOTES = os.environ["LOAD_NOTES"]
BATCH, RECENT = 20, 5
VERSION = re.compile(r'"version":"(\d+)"')

noted: list[tuple[float, str, float, bool, str]] = []


def some_user() -> str:
    return f"u{random.randrange(USERS)}"


class Client(FastHttpUser):
    """One of many that ask independently: requests come at random times, whether or not earlier ones are answered."""

    def on_start(self) -> None:
        self.due = time.perf_counter()
        time.sleep(self.wait_time())  # Else all of them ask at once, before they wait for the first time.

    def wait_time(self) -> float:
        self.due += random.expovariate(RATE)
        return max(0.0, self.due - time.perf_counter())

    @task(40)
    def one_user(self) -> None:
        self.client.post("/recommendations", json={"user_id": some_user(), "k": 10}, name="one user")

    @task(40)
    def list_of_the_table(self) -> None:
        self.client.get(f"/recommendations/{some_user()}?k=10", name="list of the table")

    @task(15)
    def recent_items(self) -> None:
        items = [f"i{random.randrange(ITEMS)}" for _ in range(RECENT)]
        self.client.post(
            "/recommendations", json={"user_id": some_user(), "k": 10, "recent_items": items}, name="recent items"
        )

    @task(5)
    def batch(self) -> None:
        self.client.post(
            "/recommendations", json=[{"user_id": some_user(), "k": 10} for _ in range(BATCH)], name="batch of 20"
        )


@events.request.add_listener
def note(name: str, response_time: float, response: Any, exception: object, start_time: float, **_: object) -> None:
    found = None if exception or response.status_code != 200 else VERSION.search(response.text[:100])
    noted.append((start_time, name, response_time, found is not None, found[1] if found else ""))


@events.quitting.add_listener
def write(**_: object) -> None:
    with open(NOTES, "w", encoding="utf-8") as file:
        json.dump(noted, file)
