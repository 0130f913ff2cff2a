"""What the pretended clouds reckon and refuse themselves, without any machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cloud import mac
from tests.support.cloud.digitalocean import DigitalOcean


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


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[DigitalOcean]:
    with DigitalOcean(tmp_path / "cloud", {"debian-12-x64": (tmp_path,)}) as running:
        yield running


@pytest.fixture
def account(cloud: DigitalOcean) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cloud.url, headers={"Authorization": f"Bearer {cloud.token}"}) as client:
        yield client


@pytest.mark.parametrize("token", ["", "Bearer dop_v1_wrong", "Basic x"])
def test_digitalocean_wants_the_token(cloud: DigitalOcean, token: str) -> None:
    answer = httpx.get(f"{cloud.url}/v2/droplets", headers={"Authorization": token})
    assert (answer.status_code, answer.json()["id"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("wrong", "about"),
    [
        ({"image": "no-such-image"}, "image"),
        ({"image": 12345}, "image"),
        ({"size": "huge"}, "size"),
        ({"region": "moon1"}, "region"),
        ({"name": "not a host name"}, "hostname"),
        ({"ssh_keys": [1]}, "key identifiers"),
        ({"user_data": "#" * 70_000}, "User data"),
    ],
)
def test_digitalocean_makes_no_droplet_of_nonsense(
    cloud: DigitalOcean, account: httpx.Client, wrong: dict[str, object], about: str
) -> None:
    wanted = {"name": "x", "region": "nyc3", "size": "s-1vcpu-2gb", "image": "debian-12-x64", **wrong}
    answer = account.post("/v2/droplets", json=wanted)
    assert (answer.status_code, answer.json()["id"]) == (422, "unprocessable_entity")
    assert about in answer.json()["message"]
    assert not cloud.leftovers


@pytest.mark.parametrize("path", ["/v2/droplets/1", "/v2/images/1", "/v2/actions/1", "/v2/nothing", "/"])
def test_digitalocean_knows_what_is_not_there(account: httpx.Client, path: str) -> None:
    answer = account.get(path)
    assert (answer.status_code, answer.json()["id"]) == (404, "not_found")


def test_digitalocean_takes_a_key_once_and_only_a_key(cloud: DigitalOcean, account: httpx.Client) -> None:
    key = {"name": "mine", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIACeqcnG5ARzEt1iB9KqUP1XYj2Y7jQogsGgMgWa"}
    made = account.post("/v2/account/keys", json=key)
    assert made.status_code == 201
    assert account.post("/v2/account/keys", json=key).status_code == 422
    assert account.post("/v2/account/keys", json={"name": "x", "public_key": "none"}).status_code == 422
    assert cloud.leftovers == ["key mine"]
    path = f"/v2/account/keys/{made.json()['ssh_key']['id']}"
    assert [account.delete(path).status_code for _ in range(2)] == [204, 404]
