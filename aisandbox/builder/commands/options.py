"""Options that several of the builder's commands have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Flavour(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


FlavourOption = Annotated[Flavour, typer.Option(help="cpu for try-outs and tests, cuda for GPU instances.")]
