from __future__ import annotations

import pytest

from sandbox_api.head_tail import HeadTailBuffer, clipped


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (10, "0123456789"),
        (9, "0123\n[... 2 characters left out ...]\n6789"),
        (4, "01\n[... 6 characters left out ...]\n89"),
        (1, "0\n[... 8 characters left out ...]\n9"),
    ],
)
def test_the_middle_is_left_out(limit: int, expected: str) -> None:
    assert clipped("0123456789", limit) == expected


def test_parts_come_together() -> None:
    buffer = HeadTailBuffer(4)
    for part in ("", "0", "12", "3456", "", "7"):
        buffer.add(part)
    assert (str(buffer), buffer.total, buffer.left_out) == ("01\n[... 4 characters left out ...]\n67", 8, 4)
