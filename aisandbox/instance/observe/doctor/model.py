"""Check of the model's files: whether the weights are all there, and whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aisandbox.instance import files, safetensors
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.observe.doctor.finding import Finding, Instance, failed, ok, skipped
from aisandbox.instance.problem import printable

INDEX = "model.safetensors.index.json"


def cache(instance: Instance) -> Iterator[Finding]:
    located = Deployment.find(instance.places.located)
    if not located or not located.candidates:
        yield skipped("No model is on this instance yet.")
        return
    folder, name = Path(located.candidates[0].folder), located.candidates[0].model
    faults = list(broken(folder))
    for fault in faults:
        again = f"sudo rm -rf {folder.parent.parent} && sudo aisandbox configure"
        yield failed(f"{name}: {fault}", f"Fetch it again: {again}")
    if not faults:
        yield ok(f"{name} is complete")


def broken(folder: Path) -> Iterator[str]:
    """What is wrong with the weights in a folder, by their names and sizes; contents are not read."""
    if not (folder / "config.json").is_file():
        yield "config.json is missing."
    weights = {path.name for path in folder.glob("*.safetensors")}
    listed = (files.read_json(folder / INDEX) or {}).get("weight_map")
    if isinstance(listed, dict):
        weights |= {str(file) for file in listed.values() if "/" not in str(file)}
    elif not weights and not list(folder.glob("*.bin")):
        yield "There are no weights."
    for weight in sorted(weights):
        fault = _fault(folder / weight)
        if fault:
            yield f"{printable(weight)} {fault}."


def _fault(path: Path) -> str:
    """Why a safetensors file cannot be whole: its header says how long it is."""
    try:
        wanted = safetensors.expected_size(path)
        size = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "does not begin like a safetensors file"
    return "" if size == wanted else f"has {size} bytes instead of {wanted}"
