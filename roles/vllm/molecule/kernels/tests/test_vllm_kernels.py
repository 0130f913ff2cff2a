"""FlashInfer's kernels: exactly the locked ones, or none, and a bake that goes on."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.roles import environments
from tests.support.flashinfer_index import TAGS

QUESTION = """
import json, flashinfer_cubin, flashinfer_jit_cache
providers = flashinfer_jit_cache.get_jit_cache_providers()
print(json.dumps([flashinfer_cubin.__version__, flashinfer_jit_cache.__version__, [p.provider_id for p in providers]]))
"""


def test_the_kernels_of_every_gpu_are_there(host: Host) -> None:
    said = host.check_output(f"{environments.ENVIRONMENTS}/appliance/bin/python -c '{QUESTION}'")
    assert json.loads(said) == ["0.7.0.post1", "0.7.0.post1+cu130", list(TAGS)]
    assert (
        host.check_output(f"find {environments.ENVIRONMENTS}/appliance -path '*flashinfer_cubin*' -name '*.pyc'") != ""
    )


@pytest.mark.parametrize("name", ["supervisor", "uv"])
def test_what_cannot_be_had_or_trusted_is_not_installed(host: Host, name: str) -> None:
    assert host.check_output(f"find {environments.ENVIRONMENTS}/{name}/lib -name 'flashinfer*'") == ""
