"""Settings: where they come from, what is refused, and what is never told."""

from pathlib import Path
from typing import get_args

import pytest

from recsys.config import load_settings
from recsys.config.fingerprint import shapes
from recsys.config.model import Model
from recsys.config.sections import EventWeight
from recsys.config.settings import check_settings, differences
from recsys.errors import ConfigError


def test_defaults_need_no_file() -> None:
    settings = load_settings()
    assert settings.source.format == "json"
    assert settings.tracking_uri == f"sqlite:///{Path('var/recsys').absolute()}/mlflow.db"


def test_command_line_wins_over_environment_wins_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nrecommend: {k: 5}\nmodel: {factors: 16}\n")
    monkeypatch.setenv("RECSYS__RECOMMEND__K", "6")
    monkeypatch.setenv("RECSYS__MODEL__FACTORS", "32")
    settings = load_settings(file, ["model.factors=48"])
    assert (settings.seed, settings.recommend.k, settings.model.factors) == (1, 6, 48)


def test_a_weight_may_be_a_number_or_a_section() -> None:
    settings = load_settings(overrides=["weights.buy=2", "weights.rate.weight=1", "weights.rate.value=log"])
    assert settings.weights["buy"] == EventWeight(weight=2.0)
    assert settings.weights["rate"].value == "log"
    assert settings.weights["rate"].min_value == 0.0, "no value below 0 has a place under the logarithm"


def test_reader_options_may_be_written_as_yaml_likes_them() -> None:
    settings = load_settings(overrides=["source.options.header=true", "source.options.maxFilesPerTrigger=1"])
    assert settings.source.options == {"header": "true", "maxFilesPerTrigger": "1"}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "storage.root=s3a://bucket/root",
            "mlflow.tracking_uri is null, and no database can lie under",
        ),
        (
            "storage.root=s3://bucket/root",
            "its scheme is none of s3a://, abfss://, gs://; Spark knows S3 as s3a",
        ),
        ("storage.root=hdfs://host/root", "storage.root: its scheme is none of s3a://, abfss://, gs://: set it to one"),
        ("storage.root=dbfs:/recsys", "storage.root: dbfs:/ is not supported"),
        ("storage.root=s3a://me:canary@bucket/root", "storage.root: a URI is s3a://BUCKET/FOLDER, without user"),
        ("storage.root=gs://bucket/root?token=canary", "storage.root: a URI is gs://BUCKET/FOLDER, without user"),
        ("storage.root=s3a:///root", "storage.root: a URI is s3a://BUCKET/FOLDER"),
        ("modle.factors=8", "unknown setting 'modle'"),
        ("model.factor=8", "unknown setting 'model.factor'"),
        ("model.factors=many", "setting 'model.factors'"),
        ("model.factors=-1", "setting 'model.factors'"),
        ("model.alpha=.inf", "setting 'model.alpha'"),
        ("model.forget_after_days=0", "setting 'model.forget_after_days': input should be greater than 0 (got 0)"),
        ("trigger.mode=sometimes", "setting 'trigger.mode'"),
        ("storage=here", "setting 'storage'"),
        ("weights={}", "setting 'weights'"),
        ("weights.buy={weight: 1, min_value: 2, max_value: 1}", "min_value is above max_value"),
        ("weights.buy={weight: 1, value: log, min_value: -1}", "min_value is below 0"),
        ("weights.seen={weight: 1, impression: true}", "weight is not 0, and impression is true"),
        ("experiment.arms={a: {share: 1}}", "an experiment has two arms or more"),
        ("experiment.arms={a: {share: 0.5}, b: {share: 0.4}}", "the shares add up to 0.9, not to 1"),
        ("experiment.arms={a: {share: 0.5}, b: {share: 0.5, model: recsys}}", "setting 'experiment.arms.b.model'"),
        ("experiment.arms={a: {share: 0.5}, a/b: {share: 0.5}}", "'a/b' is no name of an arm"),
        ("experiment.arms={a: {share: 0.5}, b: {share: 0.5, kind: als}}", "unknown setting 'experiment.arms.b.kind'"),
        ("sources=[{watermark: 2 hours}]", "source.watermark holds for all sources"),
        ("sources=[{weight: 0}]", "setting 'sources.0.weight': input should be greater than 0"),
        ("seed=${nowhere}", "cannot read the settings"),
        ("seed", "overrides look like"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as refused:
        load_settings(overrides=[override])
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [("- a\n- b\n", "keys and values"), ("a: [\n", "no readable YAML"), ("\x00", "no readable YAML")],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=told):
        load_settings(file)
    with pytest.raises(ConfigError, match="no configuration file"):
        load_settings(tmp_path / "missing.yaml")


def test_the_fingerprint_changes_with_what_shapes_the_model_only() -> None:
    plain = load_settings().fingerprint()
    assert load_settings(overrides=["storage.root=elsewhere", "gate.max_batches=3"]).fingerprint() == plain
    # How long lists are is nothing to factors, and something to a mixture, which learns what ranks well in them.
    assert load_settings(overrides=["recommend.k=7"]).fingerprint() != plain
    factors = [load_settings(overrides=["model.kind=als", f"recommend.k={k}"]).fingerprint() for k in (7, 20)]
    assert factors[0] == factors[1]
    views_last = load_settings(overrides=["weights.a=1", "weights.view=2"])
    assert load_settings(overrides=["weights.view=2", "weights.a=1"]).fingerprint() == views_last.fingerprint()
    for change in ("model.alpha=3", "model.forget_after_days=30", "weights.view=9", "decay.half_life_days=2", "seed=5"):
        assert load_settings(overrides=[change]).fingerprint() != plain


def test_only_what_the_kind_uses_shapes_it() -> None:
    """A setting of a learner that is not used, or a default that is written out, changes nothing."""
    assert load_settings().shaping() == {"model.kind": "mixture"}
    als = ["model.kind=als", "model.alpha=4.0"]
    unused = [
        "model.neural.layers=[8]",
        "model.mixture.neighbors=3",
        "recommend.k=7",
        "model.factors=64",
    ]
    assert load_settings(overrides=[*als, *unused]).shaping() == {"model.kind": "als"}
    without = load_settings(overrides=["model.mixture.members=[trend]", "model.factors=8", "model.mixture.repeats=9"])
    assert without.shaping() == {"model.kind": "mixture", "model.mixture.members": "['trend']"}
    was = load_settings(overrides=["model.kind=als", "model.factors=8", "weights.view=2"])
    now = load_settings(overrides=["model.kind=als", "model.alpha=3", "weights.view=2"])
    assert differences(was.shaping(), was) == []
    forgetful = load_settings(overrides=["model.kind=trend", "model.forget_after_days=30"])
    changed = ["model.forget_after_days (was None, is 30.0)"]
    assert differences(load_settings(overrides=["model.kind=trend"]).shaping(), forgetful) == changed
    assert differences(was.shaping(), now) == ["model.alpha (was 4.0, is 3.0)", "model.factors (was 8, is 64)"]
    assert differences(was.shaping() | {"model.gone": "1"}, was) == ["model.gone (was 1, is not set)"]


@pytest.mark.parametrize("key", [key for key in load_settings().public_parameters() if key.startswith("model.")])
def test_every_setting_of_the_model_is_used_by_some_kind(key: str) -> None:
    kinds = get_args(Model.model_fields["kind"].annotation)
    everyone = [kind for kind in kinds if kind != "mixture"]
    assert any(shapes(key, kind, everyone) for kind in kinds) or key in ("model.chunk_megabytes",)


def test_options_by_dotted_key_come_from_file_environment_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kafka.yaml"
    login = "kafka.sasl.jaas.config: 'password=\"${oc.env:PASSWORD}\";'"
    file.write_text(f"source: {{options: {{kafka.bootstrap.servers: 'a:1', {login}}}}}")
    with pytest.raises(ConfigError, match="PASSWORD"):
        load_settings(file)
    monkeypatch.setenv("PASSWORD", "hunter2")
    monkeypatch.setenv("RECSYS__SPARK__SPARK__JARS", "/x.jar")
    settings = load_settings(file, ["source.options.kafka.bootstrap.servers=b:2", "source.options.includeNew=true"])
    assert settings.spark == {"spark.jars": "/x.jar"}
    assert settings.source.options == {
        "kafka.bootstrap.servers": "b:2",
        "kafka.sasl.jaas.config": 'password="hunter2";',
        "includeNew": "true",
    }


def test_what_may_be_secret_is_no_parameter() -> None:
    settings = load_settings(
        overrides=[
            "source.options.password=hunter2",
            "sources=[{options: {password: hunter2}}]",
            "spark.token=hunter2",
            "mlflow.tracking_uri=https://me:hunter2@mlflow.example",
        ]
    )
    told = settings.public_parameters()
    assert "hunter2" not in str(told)
    with pytest.raises(ConfigError, match="setting 'spark.token'") as refused:
        check_settings({"spark": {"token": [777]}})
    assert "777" not in str(refused.value)
    with pytest.raises(ConfigError, match="setting 'sources.0.options") as refused:
        check_settings({"sources": [{"options": {"token": [777]}}]})
    assert "777" not in str(refused.value)
    assert told["model.factors"] == str(settings.model.factors)
