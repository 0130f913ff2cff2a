"""The specification's success criteria, against the container."""

from __future__ import annotations

import httpx
import pytest

from tests.support import scenario


@pytest.mark.timeout(900)
def test_the_success_criteria(client: httpx.Client) -> None:
    scenario.run(client, workspace="/workspace", root="/var/lib/aisandbox/sandbox")
