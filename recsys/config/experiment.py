"""The section of the settings about experiments: which users get which version."""

import math

from pydantic import Field, field_validator

from recsys.config.section import Section


class Arm(Section):
    """One arm of an experiment."""

    share: float = Field(
        ge=0, le=1, description="Share of the users who get this arm. 0: nobody; the stream measures it all the same."
    )
    model: str | None = Field(
        None,
        pattern=r"^models:/[^/@]+(/[0-9]+|@[\w.-]+)$",
        description="Version: `models:/NAME/VERSION` or `models:/NAME@ALIAS`, of any kind; `null`: the version that "
        "`batch_score` would use for all.",
    )


class Experiment(Section):
    """Versions that are compared on users who are assigned to them by chance (A/B test, shadow)."""

    name: str = Field(
        "experiment",
        pattern=r"^[\w.-]+$",
        description="Name of the experiment. Another name assigns the users again.",
    )
    arms: dict[str, Arm] = Field(
        default_factory=dict,
        description="The arms by name, two or more. Of each the `share` of the users who get it, all of which add up "
        "to 1 (with 0 nobody does, but the stream measures it), and the `model`: `models:/NAME/VERSION` or "
        "`models:/NAME@ALIAS`, of any kind; `null`: the version that serves without an experiment. Empty: none.",
    )

    @field_validator("arms")
    @classmethod
    def _whole(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if not arms:
            return arms
        if len(arms) < 2:
            raise ValueError("an experiment has two arms or more")
        odd = [name for name in arms if not name.replace("-", "_").isidentifier()]
        if odd:
            raise ValueError(f"'{odd[0]}' is no name of an arm: letters, digits, _ and -, and no digit first")
        total = math.fsum(arm.share for arm in arms.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}, not to 1")
        return arms
