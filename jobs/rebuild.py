"""spark-submit jobs/rebuild.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings

EXAMPLES = {
    "after a change of model settings in my.yaml": "--config my.yaml",
    "another learner": "--config my.yaml model.kind=als model.factors=128",
    "without what bots have done": "--config my.yaml rebuild.without_users=[bot1,bot2] rebuild.without_batches=[17]",
    "go back to the model after batch 16": "--config my.yaml rebuild.as_of_batch=16",
    "time decay": "--config my.yaml decay.half_life_days=30",
    "a history that is larger than the driver's memory": "--config my.yaml model.kind=als rebuild.distributed=true",
}
SETTINGS = (
    "model.kind",
    "model.factors",
    "model.mixture.members",
    "decay.half_life_days",
    "rebuild.as_of_batch",
    "rebuild.without_batches",
    "rebuild.without_users",
    "rebuild.distributed",
    "device",
    "storage.root",
)


def rebuild_model(settings: Settings) -> None:
    """Retrain the model from the whole interaction log, and begin a new generation with it.

    The model is registered as a version, and the stream continues from it. Stop the stream first.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch, nor one for the other.
    from recsys.tables.session import begin_session

    begin_session(settings)
    from recsys.stream.rebuild import rebuild

    rebuilt = rebuild(settings)
    size = f"{rebuilt.users:,} users and {rebuilt.items:,} items"
    print(f"generation {rebuilt.generation} begins with {size}, retrained in {rebuilt.seconds:.1f} s")
    place = "champion" if rebuilt.promoted else "challenger: the stream compares it with the champion"
    print(f"registered as version {rebuilt.version.version}, {place}")
    if settings.rebuild.distributed:
        print("it carries no history: batch_score leaves out what users have seen by the log; a server cannot")
    print("next: jobs/stream_update.py, with the same settings, continues from this model")


if __name__ == "__main__":
    sys.exit(run_job(rebuild_model, examples=EXAMPLES, settings=SETTINGS))
