"""The sections of the settings about learning: the learners, time decay, staleness, concept drift."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from recsys.config.section import Section


class Decay(Section):
    """How interest ages."""

    half_life_days: PositiveFloat | None = Field(
        None, description="Days after which an event counts half; `null` keeps all of history alike."
    )


class NeuralSettings(Section):
    """Neural collaborative filtering, `model.kind: ncf`; its products have the length `model.factors`."""

    mlp_factors: PositiveInt = Field(32, description="Length of the embeddings that go through the layers.")
    layers: list[PositiveInt] = Field([64, 32, 16], description="Widths of the hidden layers.", min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1, description="Chance that an output of a hidden layer is dropped.")
    regularization: NonNegativeFloat = Field(0.1, description="L2 penalty on what a pair reads from the tables.")
    optimizer: Literal["adam", "adagrad", "ftrl"] = Field("adam", description="How gradients move weights.")
    learning_rate: PositiveFloat = Field(0.002, description="Step of the optimizer, after the warm-up.")
    warmup_steps: PositiveInt = Field(100, description="Steps over which the learning rate rises from 0.")
    decay_steps: PositiveInt = Field(10_000, description="The learning rate falls with 1 / sqrt(1 + steps / this).")
    l1: NonNegativeFloat = Field(0.0, description="L1 penalty, with `optimizer: ftrl`.")
    batch_size: PositiveInt = Field(512, description="Pairs in one gradient, each with its negatives.")
    accumulate: PositiveInt = Field(1, description="Gradients added up for one step.")
    mixed_precision: bool = Field(True, description="Layers in bfloat16, on CUDA.")
    negatives: PositiveInt = Field(4, description="Items drawn, for each pair, from those the user never had.")
    negatives_exponent: NonNegativeFloat = Field(
        0.5, description="Exponent of an item's users in the chance that it is drawn; 0: all items alike."
    )
    replay: NonNegativeFloat = Field(1.0, description="Older pairs that are learned again for each pair of a batch.")
    replay_recent: PositiveInt = Field(20_000, description="Newest pairs kept for that.")
    replay_reservoir: PositiveInt = Field(100_000, description="Size of the even sample of all pairs kept for that.")
    held_out: float = Field(
        0.02, ge=0, lt=1, description="Share of the pairs never learned: when to stop is read there."
    )
    passes: PositiveInt = Field(1, description="Times that a batch and its replay are learned, at most.")
    towers_every_batches: PositiveInt = Field(
        5, description="Batches between two that move the layers; embeddings are moved by every batch."
    )
    frozen: list[Literal["gmf", "mlp", "hidden", "output"]] = Field(
        default_factory=list,
        description="What batches leave as a rebuild made it: embeddings that are multiplied, of the layers, layers.",
    )
    average: float = Field(0.99, ge=0, lt=1, description="What the weights that score keep of themselves at a step.")
    rebuild_epochs: PositiveInt = Field(10, description="Times that a rebuild learns all pairs, at most.")
    rebuild_pairs: PositiveInt = Field(2_000_000, description="Pairs of one such time, at most: a seeded sample.")
    patience: PositiveInt = Field(3, description="Times without progress on what is held out that end a rebuild.")
    teacher: bool = Field(
        True, description="Have an `als` model to start from, to be taught by, and to find candidates."
    )
    distillation: float = Field(0.5, ge=0, le=1, description="Share of the teacher's opinion in what a pair should be.")
    candidates: PositiveInt = Field(200, description="Items per user that are found first and then ranked.")


class MixtureSettings(Section):
    """Several members and what ranks their candidates, `model.kind: mixture`; the members' own settings, too."""

    members: list[Literal["als", "trend", "cooccurrence", "repeat", "ncf"]] = Field(
        ["als", "trend", "cooccurrence", "repeat"],
        description="Who generates candidates; always `trend`; `repeat` only without `recommend.exclude_seen`.",
    )
    half_lives: list[PositiveFloat] = Field(
        [500, 2_000, 8_000, 32_000, 128_000, 512_000],
        min_length=1,
        description="Half-lives of the trend, in events; each is a ranking of its own.",
    )
    segment_half_lives: list[PositiveFloat] = Field(
        [32_000, 128_000],
        description="Half-lives of the trend among users of one group: new ones, those with few events, the others.",
    )
    cooccurrence_half_life: PositiveFloat = Field(
        50_000, description="Events after which it counts half that one item was taken after another."
    )
    recent_items: PositiveInt = Field(20, description="Last items of a user that tell what may follow.")
    neighbors: PositiveInt = Field(64, description="Followers of an item that are remembered.")
    repeats: PositiveInt = Field(128, description="Items of a user that are remembered for taking them again.")
    repeat_half_life_days: PositiveFloat = Field(60.0, description="Days after which having taken an item counts half.")
    candidates: PositiveInt = Field(50, description="Items that a member, and each half-life, proposes to a user.")
    forgetting: float = Field(
        0.1, gt=0, lt=1, description="Share of its past that the re-ranker forgets with each batch."
    )
    regularization: PositiveFloat = Field(
        10.0, description="How strongly the re-rankers of the user groups are drawn to their mean."
    )

    @field_validator("members")
    @classmethod
    def _with_the_trend(cls, members: list[str]) -> list[str]:
        if "trend" not in members or len(set(members)) < len(members):
            raise ValueError("name `trend`, and no member twice")
        return members


class Model(Section):
    """The learner."""

    kind: Literal["mixture", "als", "ncf", "trend", "cooccurrence", "repeat"] = Field(
        "mixture",
        description="`mixture`: several learners and what has ranked best so far; each of the others also by itself.",
    )
    factors: PositiveInt = Field(64, description="Length of a user's and an item's factor vector.")
    alpha: PositiveFloat = Field(4.0, description="Confidence of an observed pair is 1 + alpha * weight.")
    regularization: PositiveFloat = Field(0.003, description="L2 penalty, before the frequency scale.")
    regularization_exponent: NonNegativeFloat = Field(
        1.0, description="Exponent of the frequency scale of the penalty (Rendle et al. 2021); 0 switches it off."
    )
    budget: PositiveFloat = Field(
        40.0, description="Interactions that a batch may read per event, for users and for items, to solve rows again."
    )
    sweeps: PositiveInt = Field(3, description="Alternations over a batch's users and items, at most.")
    settled: NonNegativeFloat = Field(
        0.05, description="Alternating ends when a batch's rows move by less than this share of their length."
    )
    history_cap: PositiveInt = Field(
        65_536, description="Interactions of one row that a solve reads, at most: an even, seeded sample of them."
    )
    rebuild_sweeps: PositiveInt = Field(8, description="Alternations over everything, in a rebuild.")
    chunk_megabytes: PositiveInt = Field(256, description="Bound on the working memory of one solve.")
    neural: NeuralSettings = Field(default_factory=NeuralSettings)
    mixture: MixtureSettings = Field(default_factory=MixtureSettings)


class Staleness(Section):
    """How far the incremental factors may be from what a full solve would give."""

    sample_rows: PositiveInt = Field(100, description="Users, and items, solved anew after each batch to measure it.")
    threshold: PositiveFloat = Field(
        0.5, description="Relative distance past which a batch ends with a sweep over everything."
    )
    shadow_every_batches: NonNegativeInt = Field(
        0, description="Batches between two comparisons with a model rebuilt for that purpose; 0: none."
    )


class ConceptDrift(Section):
    """How the learning answers to a change of tastes, found when batches surprise the model more than they used to."""

    threshold: PositiveFloat = Field(
        4.0, description="What a rise of the surprise adds up to before it counts, in its usual deviations."
    )
    batches: PositiveInt = Field(10, description="Batches after a change until all is as usual again.")
    max_effort: float = Field(
        2.0, ge=1, description="Factor of `model.budget` and `model.sweeps` at first after a change; 1: none."
    )
    max_learning_rate: float = Field(
        2.0, ge=1, description="Factor of the learning rate at first after a change, where there is one; 1: none."
    )
    max_halvings: int = Field(
        4, ge=0, le=16, description="Times that a change halves the history at once, at most; 0: never."
    )
    refresh_every_batches: NonNegativeInt = Field(
        3, description="Batches between two sweeps over everything after a change; 0: none."
    )
