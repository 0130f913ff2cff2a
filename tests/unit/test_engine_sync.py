"""When the engine is restarted after the model step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aisandbox import manifest
from aisandbox.instance import files
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from aisandbox.instance.serve import engine_sync
from tests.support.deployments import located, serving


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(manifest.load(), tmp_path)


def units(model_step_s: float | None = None) -> tuple[services.Unit, ...]:
    def unit(name: str, active: str, entered_s: float | None) -> services.Unit:
        return services.Unit(name=name, active=active, sub="", result="", restarts=0, entered_s=entered_s)

    return (unit(services.VLLM, "active", 99.0), unit(services.MODEL, "inactive", model_step_s))


def tell(places: Places, *folders: str) -> None:
    located(*map(serving, folders)).save(places.located)


def report(places: Places, state: str, seconds_ago: float, digest: str | None = None) -> None:
    told = Deployment.find(places.located)
    digest = digest or (told.digest if told else "")
    since = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="milliseconds")
    files.write_json(places.status("engine"), {"config": digest, "state": state, "since": since})


@pytest.mark.parametrize(
    ("state", "seconds_ago", "model_step_s", "needed"),
    [
        ("done", 60, 5.0, False),
        ("failed", 60, 5.0, True),  # `aisandbox configure` ran again: the cause may be gone
        ("failed", 1, 5.0, False),  # it failed with what this very run of the model step gave it
        ("failed", 60, None, True),
    ],
)
def test_a_failure_is_tried_again_when_the_model_step_ran_again(
    places: Places, state: str, seconds_ago: float, model_step_s: float | None, needed: bool
) -> None:
    tell(places, "/m")
    report(places, state, seconds_ago)
    assert engine_sync.needed(places, units(model_step_s)) is needed


def test_other_fallbacks_alone_interrupt_nothing(places: Places) -> None:
    tell(places, "/m")
    report(places, "done", 60)
    tell(places, "/m", "/f")
    assert not engine_sync.needed(places, units())
    tell(places, "/n", "/f")
    assert engine_sync.needed(places, units())


def test_half_a_file_interrupts_nothing(places: Places) -> None:
    places.located.parent.mkdir(parents=True, exist_ok=True)
    places.located.write_text('{"form": 1, "serving')
    report(places, "done", 60, digest="of the model that serves")
    assert not engine_sync.needed(places, units())
