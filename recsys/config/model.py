"""The sections of the settings about learning: the learners, time decay, staleness, concept drift."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from recsys.config.section import Section


class Decay(Section):
    """Time decay of the training data; a change needs `jobs/rebuild.py`."""

    half_life_days: PositiveFloat | None = Field(
        None,
        description="Days after which an event counts half as much; `null`: no decay. Set it where preferences change "
        "with the season.",
    )


class NeuralSettings(Section):
    """Neural collaborative filtering (NeuMF), `model.kind: ncf`. The GMF embeddings have `model.factors` dimensions."""

    mlp_factors: PositiveInt = Field(
        32, description="Dimensions of the embeddings of the MLP tower. More need more data."
    )
    layers: list[PositiveInt] = Field(
        [64, 32, 16], description="Units in each hidden layer of the MLP tower.", min_length=1
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Dropout probability after each hidden layer. Raise it against overfitting."
    )
    regularization: NonNegativeFloat = Field(
        0.1, description="L2 penalty on the embeddings of each training pair. Raise it against overfitting."
    )
    optimizer: Literal["adam", "adagrad", "ftrl"] = Field(
        "adam", description="Optimizer. `ftrl` (FTRL-Proximal) with `l1` gives sparse weights."
    )
    learning_rate: PositiveFloat = Field(
        0.002, description="Peak learning rate, reached after the warm-up. Lower it if the loss oscillates."
    )
    warmup_steps: PositiveInt = Field(
        100, description="Optimizer steps over which the learning rate rises linearly from 0."
    )
    decay_steps: PositiveInt = Field(
        10_000, description="The learning rate decays with 1 / sqrt(1 + step / decay_steps). Lower: faster decay."
    )
    l1: NonNegativeFloat = Field(0.0, description="L1 penalty; used by `optimizer: ftrl` only.")
    batch_size: PositiveInt = Field(
        512, description="Positive pairs per gradient, each with its negatives. Raise it on a GPU."
    )
    accumulate: PositiveInt = Field(
        1, description="Gradients accumulated per optimizer step. Raise it where a larger batch does not fit in memory."
    )
    mixed_precision: bool = Field(True, description="Compute the layers in bfloat16 on CUDA; no effect on the CPU.")
    negatives: PositiveInt = Field(
        4, description="Negatives sampled per positive pair, from items that the user has not interacted with."
    )
    negatives_exponent: NonNegativeFloat = Field(
        0.5,
        description="Negatives are sampled in proportion to (users of the item) ^ exponent; 0: uniformly. "
        "Higher: more popular, harder negatives.",
    )
    replay: NonNegativeFloat = Field(
        1.0, description="Older pairs replayed per new pair. Raise it if the network forgets, at a cost in time."
    )
    replay_recent: PositiveInt = Field(20_000, description="Size of the replay buffer of the newest pairs.")
    replay_reservoir: PositiveInt = Field(
        100_000, description="Size of the reservoir, a uniform sample of all pairs so far."
    )
    held_out: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Share of the pairs held out from training, for early stopping; 0: no early stopping.",
    )
    passes: PositiveInt = Field(
        1, description="Passes over a batch and its replayed pairs, at most; early stopping may end them."
    )
    towers_every_batches: PositiveInt = Field(
        5, description="Batches between two updates of the layers. Embeddings are updated with every batch."
    )
    frozen: list[Literal["gmf", "mlp", "hidden", "output"]] = Field(
        default_factory=list,
        description="Parts that only a rebuild trains: the embeddings of the GMF or MLP tower, the hidden layers, the "
        "output layer.",
    )
    average: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay per step of the moving average of the weights; the average is what scores. 0: no averaging.",
    )
    rebuild_epochs: PositiveInt = Field(10, description="Epochs of a rebuild, at most; early stopping may end it.")
    rebuild_pairs: PositiveInt = Field(
        2_000_000, description="Pairs per epoch of a rebuild, at most; a seeded sample of a larger history."
    )
    patience: PositiveInt = Field(
        3, description="Epochs of a rebuild without improvement on the held-out pairs before it stops."
    )
    teacher: bool = Field(
        True,
        description="Train an `als` model beside the network, for warm-started embeddings, distillation and candidate "
        "generation.",
    )
    distillation: float = Field(
        0.5, ge=0, le=1, description="Share of the teacher's prediction in a pair's target; 0: labels only."
    )
    candidates: PositiveInt = Field(
        200, description="Candidates per user that the network re-ranks. More: better recall, slower scoring."
    )


class MixtureSettings(Section):
    """The members of `model.kind: mixture`, their own settings, and those of the re-ranker."""

    members: list[Literal["als", "trend", "cooccurrence", "repeat", "sessions", "content", "sequence", "ncf"]] = Field(
        ["als", "trend", "cooccurrence", "repeat", "sessions"],
        description="Learners that generate candidates, or features of them. `trend` is required; `repeat` is used "
        "only with `recommend.exclude_seen: false`; `content` compares items by their texts or vectors, and needs "
        "`items.path`; `sequence` reads the order of a user's last items, at a cost that may exceed all others.",
    )
    half_lives: list[PositiveFloat] = Field(
        [500, 2_000, 8_000, 32_000, 128_000, 512_000],
        min_length=1,
        description="Half-lives of `trend`, in events of the stream. Each is an expert of its own and costs time.",
    )
    segment_half_lives: list[PositiveFloat] = Field(
        [32_000, 128_000],
        description="Half-lives, in events, of `trend` within a user group (new, occasional, frequent users).",
    )
    cooccurrence_half_life: PositiveFloat = Field(
        50_000, description="Half-life of a co-occurrence count, in events. Lower it where catalogs turn over fast."
    )
    session_half_life: PositiveFloat = Field(
        100_000, description="Half-life of a count of `sessions`, in events. Lower it where catalogs turn over fast."
    )
    recent_items: PositiveInt = Field(
        20, description="Last items of a user from which `cooccurrence` predicts what follows."
    )
    neighbors: PositiveInt = Field(
        64, description="Neighbors kept per item by `cooccurrence`. More: better recall, more memory."
    )
    repeats: PositiveInt = Field(
        512, description="Items kept per user by `repeat`. Raise it where users rebuy from long lists."
    )
    repeat_half_life_days: PositiveFloat = Field(
        60.0, description="Half-life, in days, of an interaction in `repeat`. Set it to a few purchase cycles."
    )
    candidates: PositiveInt = Field(
        50, description="Candidates per user from each member, and from each half-life of `trend`."
    )
    forgetting: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of its memory that the re-ranker forgets with each batch. Raise it to adapt faster.",
    )
    regularization: PositiveFloat = Field(
        10.0,
        description="Pull of each user group's re-ranker toward the mean of all. Raise it where groups are small.",
    )

    @field_validator("members")
    @classmethod
    def _with_the_trend(cls, members: list[str]) -> list[str]:
        if "trend" not in members or len(set(members)) < len(members):
            raise ValueError("name `trend`, and no member twice")
        return members


class Model(Section):
    """The learner and its hyperparameters; a change needs `jobs/rebuild.py`."""

    kind: Literal["mixture", "als", "ncf", "trend", "cooccurrence", "repeat", "sessions", "content", "sequence"] = (
        Field(
            "mixture",
            description="Learner. `mixture` re-ranks the candidates of several learners; each of the others works by "
            "itself, too.",
        )
    )
    factors: PositiveInt = Field(
        64, description="Dimensions of the user and item factors. More: finer preferences, slower, more memory."
    )
    alpha: PositiveFloat = Field(
        4.0, description="Confidence of an observed pair is 1 + alpha * weight. Tune it first, with `regularization`."
    )
    regularization: PositiveFloat = Field(
        0.003, description="L2 penalty on the factors, before frequency scaling. Raise it on sparse data."
    )
    regularization_exponent: NonNegativeFloat = Field(
        1.0,
        description="Exponent of the frequency scaling of the penalty (Rendle et al. 2021); 0: the same for all rows.",
    )
    budget: PositiveFloat = Field(
        40.0,
        description="Interactions read per event to re-solve factors, for users and again for items. Lower: faster "
        "batches, staler factors.",
    )
    sweeps: PositiveInt = Field(
        3, description="Alternations between a batch's items and users, at most. Lower it for faster batches."
    )
    settled: NonNegativeFloat = Field(
        0.05,
        description="Relative change of a batch's factors below which alternating stops. Lower: closer to convergence.",
    )
    history_cap: PositiveInt = Field(
        65_536, description="Interactions read to solve one user or item, at most; a seeded sample of a longer history."
    )
    rebuild_sweeps: PositiveInt = Field(
        8, description="Alternations over all users and items in a rebuild. More help little past convergence."
    )
    forget_after_days: PositiveFloat | None = Field(
        None,
        description="Days of event time without an event after which a user or an item is forgotten, with its pairs, "
        "within an eighth more; pairs also go once they have decayed to nothing. `null`: never. Set it where ids keep "
        "changing, so that memory stays bounded, and longer than any pause after which users come back.",
    )
    chunk_megabytes: PositiveInt = Field(
        256, description="Working memory of one solve, in megabytes. Lower it if the driver or GPU runs out of memory."
    )
    neural: NeuralSettings = Field(default_factory=NeuralSettings)
    mixture: MixtureSettings = Field(default_factory=MixtureSettings)


class Robustness(Section):
    """Bounds on what one user can do to the model in one batch; the log keeps every event."""

    events_per_pair: PositiveFloat | None = Field(
        20.0,
        description="A user's events with one item count at most as so many of the heaviest type of `weights`; `null`: "
        "no bound. Both bounds are for a batch of up to 40,000 events, and rise in proportion in larger ones.",
    )
    repeats_per_user: PositiveFloat | None = Field(
        200.0,
        description="What a user does with items beyond one event each counts at most as so many events altogether, in "
        "the same unit; `null`: no bound.",
    )


class Staleness(Section):
    """How far incremental factors may be from those of a full solve."""

    sample_rows: PositiveInt = Field(
        100, description="Users, and items, fully solved after each batch to measure staleness. More: less noise."
    )
    threshold: PositiveFloat = Field(
        0.5,
        description="Relative distance to a full solve above which all factors are re-solved. Lower: fresher factors, "
        "more full sweeps.",
    )
    shadow_every_batches: NonNegativeInt = Field(
        0, description="Batches between two comparisons with a model retrained from scratch; 0: never. Costs a rebuild."
    )


class ConceptDrift(Section):
    """What to do when preferences change, which is detected by a rise of the model's surprise at new batches."""

    threshold: PositiveFloat = Field(
        4.0,
        description="Page-Hinkley threshold, in typical deviations of the surprise. Raise it against false alarms.",
    )
    batches: PositiveInt = Field(
        10, description="Batches over which effort and learning rate return to normal after a detection."
    )
    max_effort: float = Field(
        2.0, ge=1, description="Multiplies `model.budget` and `model.sweeps` right after a detection; 1: never."
    )
    max_learning_rate: float = Field(
        2.0, ge=1, description="Multiplies the learning rate of `ncf` right after a detection; 1: never."
    )
    max_halvings: int = Field(
        4,
        ge=0,
        le=16,
        description="Times that a detection halves the history's weight, at most; 0: never. Lower: slower forgetting.",
    )
    refresh_every_batches: NonNegativeInt = Field(
        3, description="Batches between two full solves while learning returns to normal; 0: none."
    )
