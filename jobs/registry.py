"""python jobs/registry.py list|show|promote|rollback|hold|release --config conf/local.yaml [key.sub=value ...]"""

import getpass
import sys
from typing import Any

from recsys.cli import run_job
from recsys.config import Settings
from recsys.errors import ConfigError

ACTIONS = ("list", "show", "promote", "rollback", "hold", "release")
EXAMPLES = {
    "all versions, newest first": "list --config my.yaml",
    "what is known of one": "show --version 3 --config my.yaml",
    "make a version champion": "promote --version 3 --reason 'the sale is over' --config my.yaml",
    "go back to the champion before": "rollback --reason 'lists look wrong' --config my.yaml",
    "go back to a certain version": "rollback --version 2 --config my.yaml",
    "let the stream promote nothing for a while": "hold --reason 'sale this week' --config my.yaml",
}
SETTINGS = ("mlflow.model_name", "mlflow.tracking_uri", "storage.root", "gate.approval", "register.every_batches")
OPTIONS: dict[str, dict[str, Any]] = {
    "action": {"choices": ACTIONS, "help": "what to do"},
    "--version": {"help": "number of the version, for show, promote and rollback"},
    "--reason": {"default": "", "help": "why, recorded beside your name"},
}


def registry(settings: Settings, action: str, version: str | None, reason: str) -> None:
    """List the registered versions, or decide which of them is champion; who and why is recorded in tags.

    A running stream follows within one batch: it compares with the champion that you chose, and promotes nothing while
    there is a hold.
    """
    # Imported here, so that help does not wait for MLflow.
    from recsys.registry import decisions, overview, versions
    from recsys.registry.decisions import RegistryDecision

    if (version is None) and action in ("show", "promote"):
        raise ConfigError(f"{action} needs a version: registry.py {action} --version NUMBER")
    name = settings.mlflow.model_name
    client = versions.connect_to_existing(settings, f"models:/{name}")
    decision = RegistryDecision(getpass.getuser(), reason)
    if action == "list":
        print(overview.table(client, name))
    elif action == "show":
        print(overview.card(versions.resolve(client, f"models:/{name}/{version}")))
    elif action == "promote":
        chosen = versions.resolve(client, f"models:/{name}/{version}")
        decisions.promote(client, chosen, decision)
        print(f"{chosen.uri} is champion; the one before is {decisions.PREVIOUS}")
    elif action == "rollback":
        print(f"{decisions.rollback(client, name, version, decision).uri} is champion again")
    elif action == "hold":
        decisions.hold(client, name, decision)
        print(f"models:/{name}: the stream promotes nothing until registry.py release")
    else:
        decisions.release(client, name)
        print(f"models:/{name}: the stream promotes again")


if __name__ == "__main__":
    sys.exit(run_job(registry, examples=EXAMPLES, settings=SETTINGS, options=OPTIONS))
