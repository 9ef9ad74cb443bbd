"""The bundles for Databricks, as far as they can be checked without a workspace: by the models of its own library."""

import doctest
import os
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from databricks.bundles.jobs import Job
from databricks.bundles.model_serving_endpoints import ModelServingEndpoint
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

import recsys.databricks
from recsys.config import Settings, load_settings
from recsys.databricks import places, setup_statements
from recsys.errors import ConfigError

ROOT = Path(__file__).parents[1]
MODELS: dict[str, Any] = {
    "jobs": Job,
    "model_serving_endpoints": ModelServingEndpoint,
    "schemas": Schema,
    "volumes": Volume,
}
BUNDLE, SERVING = ROOT / "databricks.yml", ROOT / "conf" / "serving" / "databricks.yml"
# What only a workspace knows.
OPEN = {"${workspace.file_path}"}
WIDGETS = {"catalog": "main", "schema": "recsys", "volume": "state", "model": "recommender", "folder": ""}


def merged(base: Any, over: Any) -> Any:
    """Settings of a target laid over those of the bundle; the lists of ours do not meet."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {key: merged(base[key], value) if key in base else value for key, value in over.items()}


def filled(node: Any, names: Mapping[str, Any]) -> Any:
    """A part of a bundle with what is known in place of `${...}`."""
    if isinstance(node, dict):
        return {key: filled(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, names) for value in node]
    if isinstance(node, str):
        return re.sub(r"\$\{([\w.]+)\}", lambda found: str(names.get(found[1], found[0])), node)
    return node


def deployed(file: Path, target: str, **given: str) -> dict[str, Any]:
    """A bundle as a target deploys it, with variables as `--var` gives them."""
    bundle = yaml.safe_load(file.read_text("utf-8"))
    chosen = bundle["targets"][target]
    resources = merged(bundle["resources"], chosen.get("resources", {}))
    values = {name: variable["default"] for name, variable in bundle["variables"].items() if "default" in variable}
    names = {f"var.{name}": value for name, value in (values | given).items()}
    names |= {"bundle.name": bundle["bundle"]["name"], "bundle.target": target}
    for kind, found in resources.items():
        names |= {f"resources.{kind}.{key}.name": filled(one.get("name"), names) for key, one in found.items()}
    rest = {key: value for key, value in chosen.items() if key != "resources"}
    return filled({**bundle, "resources": resources, "target": rest}, names)


def clusters(target: str = "prod", **given: str) -> dict[str, dict[str, Any]]:
    """Cluster by job."""
    jobs = deployed(BUNDLE, target, **given)["resources"]["jobs"]
    return {name: job["job_clusters"][0]["new_cluster"] for name, job in jobs.items()}


@pytest.fixture(scope="module")
def packaging() -> dict[str, Any]:
    """The names in setup.py, and as `setup` what it was told."""
    told: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", told.update)
        return runpy.run_path(str(ROOT / "setup.py")) | {"setup": told}


@pytest.mark.parametrize("target", ["dev", "prod"])
@pytest.mark.parametrize("file", [BUNDLE, SERVING], ids=["jobs", "serving"])
def test_every_resource_is_one_of_databricks(file: Path, target: str) -> None:
    bundle = deployed(file, target, version="7")
    assert bundle.keys() <= {"bundle", "variables", "artifacts", "sync", "resources", "targets", "target"}
    for kind, resources in bundle["resources"].items():
        for resource in resources.values():
            MODELS[kind].from_dict(resource)
    named = set(re.findall(r"\$\{[^}]*\}", str([bundle["resources"], bundle["target"]])))
    assert named <= OPEN, "a variable that is not defined"


@pytest.mark.parametrize("wrong", [{"data_security_mode": "DEDICATED"}, {"node_type": "DEDICATED"}])
def test_the_models_refuse_what_is_misspelled(wrong: dict[str, str]) -> None:
    job = deployed(BUNDLE, "prod")["resources"]["jobs"]["stream"]
    job["job_clusters"][0]["new_cluster"] |= wrong
    with pytest.raises(ValueError, match="DEDICATED|node_type"):
        Job.from_dict(job)


def test_a_variable_without_a_default_has_to_be_given() -> None:
    (entity,) = deployed(SERVING, "prod")["resources"]["model_serving_endpoints"]["recommender"]["config"][
        "served_entities"
    ]
    assert entity["entity_version"] == "${var.version}"


def test_tasks_start_the_jobs_of_the_wheel(packaging: dict[str, Any]) -> None:
    told = packaging["setup"]
    assert "recsys = recsys.console:main" in told["entry_points"]["console_scripts"]
    jobs = deployed(BUNDLE, "prod")["resources"]["jobs"]
    assert jobs.keys() == {"stream", "score", "rebuild", "maintain"}
    for job in jobs.values():
        (task,), (cluster,) = job["tasks"], job["job_clusters"]
        assert task["job_cluster_key"] == cluster["job_cluster_key"]
        wheel = task["python_wheel_task"]
        assert (wheel["package_name"], wheel["entry_point"]) == (told["name"].replace("-", "_"), "recsys")
        name, option, file = wheel["parameters"]
        assert (ROOT / "jobs" / f"{name.replace('-', '_')}.py").exists()
        assert (option, file) == ("--config", "${workspace.file_path}/conf/databricks.yaml")
        # A pause in development is what `mode: development` is for.
        pauses = [job[how]["pause_status"] for how in ("continuous", "schedule") if how in job]
        assert pauses in (["UNPAUSED"], [])
    assert "schedule" not in jobs["rebuild"], "it is refused while the stream runs"


def test_libraries_are_the_wheel_and_what_the_package_needs_of_them(packaging: dict[str, Any]) -> None:
    for job in deployed(BUNDLE, "prod")["resources"]["jobs"].values():
        first, *rest = job["tasks"][0]["libraries"]
        assert first == {"whl": "./dist/*.whl"}
        needed = [packaging["DELTA"], packaging["PROMETHEUS"], *packaging["MLFLOW"]]
        assert [library["pypi"]["package"] for library in rest] == needed
    extra = packaging["setup"]["extras_require"]["databricks"]
    assert set(needed) <= set(extra)
    assert not {"pyspark", "delta-spark"} & {re.split("[<>=]", name)[0] for name in extra}, "the runtime has its own"


@pytest.mark.parametrize("node", ["m6i.2xlarge", "g5.2xlarge"])
def test_the_model_lives_on_a_classic_cluster_of_its_own(node: str) -> None:
    found = clusters(learner_node=node)
    for name, cluster in found.items():
        assert cluster["data_security_mode"] == "DATA_SECURITY_MODE_DEDICATED", name
        # Only this kind of cluster chooses the runtime for a GPU by its machine type.
        assert (cluster["kind"], cluster["use_ml_runtime"]) == ("CLASSIC_PREVIEW", True)
    assert {name for name, cluster in found.items() if cluster["node_type_id"] == node} == {"stream", "rebuild"}
    assert found["stream"] == found["rebuild"]
    assert [name for name, cluster in found.items() if not cluster["is_single_node"]] == ["score"]


def read(environment: Mapping[str, str], overrides: Sequence[str] = ()) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RECSYS__")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return load_settings(ROOT / "conf" / "databricks.yaml", overrides)


def test_bundle_settings_and_notebooks_name_the_same_places() -> None:
    file = read({})
    assert file.trigger.mode == "processing_time"
    for cluster in clusters().values():
        assert read(cluster["spark_env_vars"]) == file == read({}, places(WIDGETS))
    other = clusters(catalog="dev", schema="shop", model="ranker")["stream"]["spark_env_vars"]
    elsewhere = read(other)
    assert elsewhere == read({}, places({**WIDGETS, "catalog": "dev", "schema": "shop", "model": "ranker"}))
    assert elsewhere.mlflow.model_name == "dev.shop.ranker"
    assert elsewhere.storage.catalog == "dev.shop"
    for volume in deployed(BUNDLE, "prod", catalog="dev", schema="shop")["resources"]["volumes"].values():
        path = f"/Volumes/{volume['catalog_name']}/{volume['schema_name']}/{volume['name']}"
        assert path in (elsewhere.source.path, elsewhere.storage.root.removesuffix("/recsys"))


def test_without_a_catalog_or_a_folder_one_line_says_what_to_choose() -> None:
    with pytest.raises(ConfigError, match=r"choose a catalog .*RECSYS_NOTEBOOK_FOLDER"):
        places({**WIDGETS, "catalog": ""})


def test_who_writes_events_is_not_trusted_with_the_model() -> None:
    resources = deployed(BUNDLE, "prod", service_principal="jobs", readers="r", producers="p")["resources"]
    of_schema = {grant["principal"]: set(grant["privileges"]) for grant in resources["schemas"]["recsys"]["grants"]}
    assert of_schema["r"] == {"USE_SCHEMA", "SELECT", "EXECUTE"}
    assert of_schema["p"] == {"USE_SCHEMA"}
    assert of_schema["jobs"] >= {"CREATE_TABLE", "CREATE_MODEL", "MODIFY", "READ_VOLUME", "WRITE_VOLUME"}
    assert "grants" not in resources["volumes"]["state"]
    (events,) = resources["volumes"]["events"]["grants"]
    assert events == {"principal": "p", "privileges": ["READ_VOLUME", "WRITE_VOLUME"]}
    # The notebook grants groups the same.
    granted = [line for line in setup_statements(WIDGETS, "r", "p") if line.startswith("GRANT")]
    words = {(tuple(sorted(privileges)), who) for privileges, who in map(parts, granted)}
    expected = {(tuple(sorted(privileges)), who) for who, privileges in of_schema.items() if who != "jobs"}
    assert words == expected | {(tuple(sorted(events["privileges"])), "p")}


def parts(grant: str) -> tuple[list[str], str]:
    """Privileges, spelled as a bundle spells them, and principal of a GRANT."""
    found = re.fullmatch(r"GRANT (.+) ON (?:SCHEMA|VOLUME) \S+ TO `(\w+)`", grant)
    assert found
    return found[1].replace(", ", ",").replace(" ", "_").split(","), found[2]


def test_the_examples_of_places_are_right() -> None:
    done = doctest.testmod(recsys.databricks)
    assert (done.attempted, done.failed) == (2, 0)


def test_names_cannot_become_sql() -> None:
    odd = "a` TO `everybody`; --"
    made = setup_statements({**WIDGETS, "catalog": odd, "schema": "s.t"}, readers=odd)
    assert made[0] == "CREATE SCHEMA IF NOT EXISTS `a`` TO ``everybody``; --`.`s.t`"
    assert made[-1].endswith(" TO `a`` TO ``everybody``; --`")
