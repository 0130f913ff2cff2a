"""One environment with exactly the locked packages."""

from __future__ import annotations

from testinfra.host import Host

from tests.roles import environments


def test_the_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "appliance", "appliance", ["typer", "pydantic", "yaml", "jinja2", "huggingface_hub"])


def test_nothing_of_the_builder_is_left(host: Host) -> None:
    assert not host.file("/root/.cache/uv").exists
    assert host.run(f"grep --recursive --files-with-matches aisandbox-bake {environments.ENVIRONMENTS}").stdout == ""
