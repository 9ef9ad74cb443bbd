"""A page in a real browser: what its scripts make of it, what the console says, and what it asks the network for."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

_CONSOLE = re.compile(r"CONSOLE:\d+\] (.*)")
_REQUEST = "URL_REQUEST_START_JOB"
_OF_THE_BROWSER = "not an origin"  # Who makes a request that no page has asked for.


@dataclass(frozen=True)
class Visit:
    """What a browser saw.

    Attributes:
        elements: How many elements of each kind the page has when its scripts are done.
        console: Lines of the console.
        requests: Addresses that the page asked the network for.
    """

    elements: Counter[str]
    console: list[str]
    requests: list[str]


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.count = Counter[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1


def visit(page: Path, folder: Path, width: int = 1120) -> Visit:
    """Open a page; without Chromium the test is skipped, but fails where the environment variable CI is set."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("needs chromium")
    log = folder / "network.json"
    options = {
        "user-data-dir": folder / "profile",
        "host-resolver-rules": "MAP * ~NOTFOUND",
        "log-net-log": log,
        "virtual-time-budget": 10_000,
        "window-size": f"{width},2000",
        "enable-logging": "stderr",
    }
    switches = ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "dump-dom")
    command = [*(f"--{switch}" for switch in switches), *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(
        [chromium, *command, page.absolute().as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    logged = json.loads(log.read_text("utf-8"))
    kind = logged["constants"]["logEventTypes"][_REQUEST]
    asked = [
        event["params"] for event in logged["events"] if event["type"] == kind and "url" in event.get("params", {})
    ]
    own = [one["url"] for one in asked if one["initiator"] != _OF_THE_BROWSER and not one["url"].startswith("data:")]
    return Visit(_Elements(done.stdout).count, _CONSOLE.findall(done.stderr), own)
