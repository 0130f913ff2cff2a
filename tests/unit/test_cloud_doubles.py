"""What the pretended clouds reckon themselves."""

from __future__ import annotations

from pathlib import Path

from tests.support.cloud import mac


def test_siphash_is_siphash() -> None:
    """The example of SipHash's own paper."""
    assert mac.siphash(bytes(range(15)), bytes(range(16))) == 0xA129CA6149BE45E5


def test_the_address_depends_on_host_and_machine_and_is_nobodys(tmp_path: Path) -> None:
    host = tmp_path / "machine-id"
    host.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    # What `ip link` shows in a machine `d-try` that nspawn 252 runs on that host.
    assert mac.of("d-try", host) == "76:79:a5:a6:5e:24"
    other = mac.of("d-other", host)
    assert other != "76:79:a5:a6:5e:24"
    assert int(other[:2], 16) & 3 == 2
