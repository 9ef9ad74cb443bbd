"""What uv is told about index and certificates is what pip is configured with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "uv.py"


@pytest.fixture
def uv(tmp_path):
    """An environment whose uv is a stand-in that prints what it is told, beside the real pip."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "uv"
    stand_in.write_text('#!/bin/sh\necho "words $*"\nenv\n')
    stand_in.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)

    def run(*words: str, conf: str | None = None, **environment: str) -> dict[str, str]:
        # At os.devnull pip reads no file at all, at another path this machine's too.
        file = Path(os.devnull) if conf is None else tmp_path / "pip.conf"
        if conf is not None:
            file.write_text(conf)
        site_packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
        done = subprocess.run(
            [tmp_path / "bin" / "python", SCRIPT, *words],
            env={"PATH": os.defpath, "PYTHONPATH": site_packages, "PIP_CONFIG_FILE": str(file)} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        first, *rest = done.stdout.splitlines()
        return {"words": first.removeprefix("words ")} | dict(line.split("=", 1) for line in rest if "=" in line)

    return run


def test_words_are_passed_on_and_nothing_is_made_up(uv):
    seen = uv("pip", "install", "-e", ".[dev]")
    assert seen["words"] == "pip install -e .[dev]"
    assert not [name for name in seen if name.startswith("UV_") or name == "SSL_CERT_FILE"]


def test_a_pip_configuration_file_is_followed(uv, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    conf = f"""\
[global]
index-url = https://index.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
find-links =
    {wheels}
    {tmp_path / "nowhere"}
    https://wheels.example/
trusted-host = index.example
timeout = 99
cert = /certificates.pem
"""
    seen = uv(conf=conf)
    assert seen["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert seen["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert seen["UV_FIND_LINKS"] == f"{wheels},https://wheels.example/"
    assert seen["UV_INSECURE_HOST"] == "index.example"
    assert seen["UV_HTTP_TIMEOUT"] == "99"
    assert seen["SSL_CERT_FILE"] == "/certificates.pem"


def test_variables_win_over_files_and_those_of_uv_over_those_of_pip(uv):
    conf = "[install]\nindex-url = https://install.example\n[global]\nindex-url = https://global.example\n"
    assert uv(conf=conf)["UV_DEFAULT_INDEX"] == "https://install.example"
    assert uv(conf=conf, PIP_INDEX_URL="https://pip.example")["UV_DEFAULT_INDEX"] == "https://pip.example"
    seen = uv(conf=conf, PIP_INDEX_URL="https://pip.example", UV_DEFAULT_INDEX="https://uv.example")
    assert seen["UV_DEFAULT_INDEX"] == "https://uv.example"


def test_uv_is_pinned_where_all_versions_are():
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert sum(pin.startswith("uv==") for pin in pins) == 1
    others = [ROOT / "setup.py", ROOT / "Makefile", SCRIPT]
    assert not [file for file in others if "uv==" in file.read_text("utf-8")]
