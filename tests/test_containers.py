"""What holds the containers together, as far as it can be seen without building them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recsys.config import load_settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "conf" / "containers"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
SETTINGS = load_settings(FOLDER / "stream.yaml")
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")


@pytest.mark.process
def test_the_image_is_linted() -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_what_is_copied_and_mounted_exists_and_goes_into_the_image() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for place in ("conf/containers/stream.yaml", "constraints.txt", "setup.py", "README.md", "pyproject.toml"):
        assert (ROOT / place).exists()
        assert f"!{place.partition('/')[0]}" in ignored
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    assert (FOLDER / SERVICES["mlflow"]["build"]["context"] / SERVICES["mlflow"]["build"]["dockerfile"]).exists()


def test_names_and_ports_are_those_of_the_settings() -> None:
    broker = SETTINGS.source.options["kafka.bootstrap.servers"]
    assert f"PLAINTEXT://{broker}," in SERVICES["broker"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert SETTINGS.mlflow.tracking_uri == "http://mlflow:5000"
    assert "--port=5000" in SERVICES["mlflow"]["command"]
    assert "--allowed-hosts=mlflow:5000,localhost:5000,127.0.0.1:5000" in SERVICES["mlflow"]["command"]
    scraped = yaml.safe_load((FOLDER / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    assert [job["static_configs"][0]["targets"] for job in scraped] == [
        [f"stream:{SETTINGS.monitoring.port}"],
        [f"serve:{SETTINGS.serve.port}"],
    ]
    assert SETTINGS.source.topics == [SERVICES["topic"]["command"][-1]]
    for name in ("stream", "serve"):
        assert f"storage:{SETTINGS.storage.root}" in SERVICES[name]["volumes"]
        assert (ROOT / "jobs" / f"{SERVICES[name]['command'][0].replace('-', '_')}.py").exists()
    assert set(re.findall(r"/etc/recsys/\w+\.yaml", DOCKERFILE)) == {SERVICES["stream"]["command"][-1]}


def test_nothing_is_open_to_other_machines_and_every_image_has_a_version() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        image = service["image"]
        assert image == "recsys" or re.search(r":v?\d+\.\d+\.\d+$", image), name
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.11-slim-bookworm"] * 2
    assert "USER 1000" in DOCKERFILE


def test_who_waits_for_whom_can_end() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    for others in waits.values():
        for other, how in others.items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], other
    done: set[str] = set()
    while left := [name for name in waits if name not in done]:
        ready = [name for name in left if waits[name].keys() <= done]
        assert ready, f"{left} wait for one another"
        done |= set(ready)
