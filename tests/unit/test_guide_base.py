"""The recorded answers of the guide's base are those of this base to these prompts."""

from __future__ import annotations

import json

from tests.support import guide_base


def test_they_are_up_to_date() -> None:
    made_from = json.loads(guide_base.FILE.read_text())["made_from"]
    assert made_from == guide_base.digest(), "record them anew: python -m tests.support.guide_base"
