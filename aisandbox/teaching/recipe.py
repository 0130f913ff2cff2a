"""How an adapter is trained, as a file says it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """How an adapter is trained.

    Attributes:
        targets: names of the linear layers that it changes.
        learning_rate: the highest; it rises over the first `warm_up` of the steps and falls to a tenth by a cosine.
        batch_tokens: tokens in a step, padding included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(ge=1, le=256)
    scale: float = Field(gt=0)
    targets: list[str] = Field(min_length=1)
    learning_rate: float = Field(gt=0, lt=1)
    warm_up: float = Field(ge=0, lt=1)
    epochs: int = Field(ge=1)
    batch_tokens: int = Field(ge=64)
    seed: int
