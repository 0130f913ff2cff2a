"""Deployments for tests: what configure, or the model step, would have written."""

from __future__ import annotations

from pathlib import Path

from aisandbox.instance import records
from aisandbox.instance.deployment import Deployment, Hardware, Serving
from aisandbox.instance.places import Places

GUIDE = Serving(model="example/guide")
CPU = Hardware(flavour="cpu")


def serving(folder: str, *args: str, name: str = "", names: tuple[str, ...] = (), processor: bool = False) -> Serving:
    """A model in that folder; without a name, called as its folder in a hub's cache says, or by its path."""
    cached = next((part for part in Path(folder).parts if part.startswith("models--")), folder)
    model = name or cached.removeprefix("models--").replace("--", "/", 1)
    return Serving(model=model, served_names=names, args=args, folder=folder, processor=processor)


def located(*candidates: Serving, devices: tuple[str, ...] = ()) -> Deployment:
    """The engine is to serve these, best first."""
    hardware = Hardware(flavour="cuda", devices=devices) if devices else CPU
    return Deployment(serving=candidates[0], guide=GUIDE, hardware=hardware, candidates=candidates)


def resolve(places: Places, model: str = "acme/tiny", **parts: object) -> None:
    """Have configure have resolved this: parts of a deployment as JSON has them."""
    whole = {"serving": {"model": model}, "guide": {"model": GUIDE.model}, "hardware": {"flavour": "cpu"}, **parts}
    deployment: Deployment = records.decode(Deployment, whole)
    deployment.save(places.resolved)


def locate(places: Places, folder: Path | str) -> Serving:
    """Have the engine be told to serve the model in that folder."""
    found = serving(str(folder))
    located(found).save(places.located)
    return found
