"""In which order the layers of the image are baked."""

from __future__ import annotations

from aisandbox.builder.bake import startable
from aisandbox.builder.layers import load


def test_the_longest_work_starts_first_and_as_much_of_it_as_there_are_cores() -> None:
    layers = load("cpu")
    debian, base = layers["debian"], layers["base"]
    rest = [layer for layer in layers["appliance"].stack if layer not in (debian, base)]

    def started(cores: int, *running: str) -> list[str]:
        waiting = [layer for layer in rest if layer.name not in running]
        return [layer.name for layer in startable(waiting, [layers[name] for name in running], cores)]

    assert startable([base], [debian], 2) == []
    assert started(2) == started(1) == ["desktop", "workbench"]
    assert started(4) == ["desktop", "workbench", "vllm", "open-webui"]
    assert started(2, "desktop", "workbench") == []
    assert started(3, "desktop", "workbench") == ["vllm"]
