"""DigitalOcean's API as far as images are baked and deployed by it. Droplets are real machines of the hypervisor.

    with DigitalOcean(folder, images={"debian-12-x64": stock_image("cpu")}) as cloud:
        ... cloud.url, cloud.token ...
        assert not cloud.droplets

Events (create, shutdown, power_off, snapshot, transfer) happen in the background, and a droplet takes one at a time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.cloud import droplet
from tests.support.cloud.hypervisor import Hypervisor, Instance, Place, Seed, Snapshot

Json = dict[str, Any]
REGIONS = {"nyc3": "New York 3", "fra1": "Frankfurt 1", "tor1": "Toronto 1"}
SIZES = {"s-1vcpu-2gb": (1, 2048, 50), "s-4vcpu-8gb": (4, 8192, 160), "gpu-h100x1-80gb": (20, 245760, 720)}
"""Virtual processors, MiB of memory and GB of disk."""
USER_DATA_LIMIT = 64 * 1024


class Refusal(Exception):
    """An error of the API."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def _unprocessable(message: str) -> Refusal:
    return Refusal(422, "unprocessable_entity", message)


NOT_FOUND = Refusal(404, "not_found", "The resource you requested could not be found.")


@dataclass
class Faults:
    """How the cloud misbehaves; may be changed while it serves."""

    create: str | None = None
    """Why no droplet can be created."""
    errored: set[str] = field(default_factory=set)
    """Types of events that fail."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long events of a type take, beside what they do."""
    limited: int = 0
    """So many more requests are too many."""


@dataclass
class Droplet:
    id: int
    name: str
    region: str
    size: str
    image: Json
    tags: list[str]
    created: str
    status: str = "new"
    busy: bool = True
    event: Future[None] | None = None
    """The latest."""
    instance: Instance | None = None


@dataclass
class Image:
    id: int
    name: str
    regions: list[str]
    disk: int
    droplet: int
    created: str
    snapshot: Snapshot


class DigitalOcean:
    """The cloud on a loopback port, with one account and its token; use it as a context manager."""

    def __init__(
        self, folder: Path, images: Mapping[str, Sequence[Path]], files: Mapping[Path, str] | None = None
    ) -> None:
        """
        Args:
            images: stock images by slug, each the directories of its disk, uppermost first.
            files: further files that droplets see: a way to package sources that are files of this host.
        """
        self.token = f"dop_v1_{secrets.token_hex(32)}"
        self.faults = Faults()
        self.keys: dict[int, Json] = {}
        self.droplets: dict[int, Droplet] = {}
        self.snapshots: dict[int, Image] = {}
        self.calls: list[tuple[str, str]] = []
        """Methods and paths that were asked for."""
        self.events: list[str] = []
        """Types of all events that began."""
        self.folder = folder
        self.hypervisor = Hypervisor(folder / "machines")
        settings = droplet.write_image_settings(folder / "image")
        self._stock = {slug: (settings, *lower) for slug, lower in images.items()}
        self._files = dict(files or {})
        self._actions: dict[int, Json] = {}
        self._numbers = iter(range(4_000_001, 5_000_000))
        self._lock = threading.RLock()
        self._events = ThreadPoolExecutor(thread_name_prefix="event")
        cloud: DigitalOcean = self

        class Handler(_Handler):
            owner = cloud

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._events.shutdown(cancel_futures=True)
        self.hypervisor.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def leftovers(self) -> list[str]:
        """What costs money, or lets somebody in."""
        with self._lock:
            return [
                *(f"droplet {one.name}" for one in self.droplets.values()),
                *(f"snapshot {one.name}" for one in self.snapshots.values()),
                *(f"key {one['name']}" for one in self.keys.values()),
            ]

    def answer(self, method: str, path: str, token: str, body: Json) -> tuple[int, Json | None]:
        """What the API answers.

        Raises:
            Refusal: nothing was done.
        """
        with self._lock:
            self.calls.append((method, path))
            if self.faults.limited:
                self.faults.limited -= 1
                raise Refusal(429, "too_many_requests", "API Rate limit exceeded.")
            if not secrets.compare_digest(token, self.token):
                raise Refusal(401, "Unauthorized", "Unable to authenticate you")
            for known, pattern, route in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and known == method:
                    return route(self, body, *map(int, found.groups()))
            raise NOT_FOUND

    # Keys

    def create_key(self, body: Json) -> tuple[int, Json]:
        text = str(body.get("public_key", "")).strip()
        try:
            blob = base64.b64decode(text.split()[1], validate=True)
        except (IndexError, binascii.Error):
            raise _unprocessable("Key invalid, key type, key must be in OpenSSH format") from None
        fingerprint = hashlib.md5(blob, usedforsecurity=False).digest().hex(":")
        if any(key["fingerprint"] == fingerprint for key in self.keys.values()):
            raise _unprocessable("SSH Key is already in use on your account")
        number = next(self._numbers)
        self.keys[number] = {"id": number, "fingerprint": fingerprint, "public_key": text, "name": body.get("name")}
        return 201, {"ssh_key": self.keys[number]}

    def delete_key(self, _body: Json, number: int) -> tuple[int, None]:
        if not self.keys.pop(number, None):
            raise NOT_FOUND
        return 204, None

    # Droplets

    def create_droplet(self, body: Json) -> tuple[int, Json]:
        region, size, user_data = body.get("region", "nyc3"), body.get("size"), body.get("user_data") or None
        if self.faults.create:
            raise _unprocessable(self.faults.create)
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?", str(body.get("name"))):
            raise _unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        if region not in REGIONS:
            raise _unprocessable("You specified an invalid region for Droplet creation.")
        if size not in SIZES:
            raise _unprocessable("You specified an invalid size for Droplet creation.")
        if user_data and len(user_data.encode()) > USER_DATA_LIMIT:
            raise _unprocessable("User data is too long (maximum is 64 KiB)")
        image, lower = self._image(body.get("image"), region, size)
        keys = [self._key(wanted) for wanted in body.get("ssh_keys") or []]
        number = next(self._numbers)
        made = Droplet(number, body["name"], region, size, image, list(body.get("tags") or []), _now())
        self.droplets[number] = made
        identity = droplet.Identity(number, made.name, region, keys, user_data, made.tags)

        def boot() -> None:
            def seed(place: Place) -> Seed:
                drive = self.hypervisor.folder / str(number) / "config-drive"
                droplet.write_drive(drive, identity, place)
                files = {**self._files, drive: droplet.DRIVE}
                return Seed(files, droplet.metadata_service(identity, place))

            made.instance = self.hypervisor.boot(str(number), lower, seed)
            made.status = "active"

        action = self._begin(made, "create", boot)
        return 202, {
            "droplet": self._droplet(made),
            "links": {
                "actions": [{"id": action["id"], "rel": "create", "href": f"{self.url}/v2/actions/{action['id']}"}]
            },
        }

    def get_droplet(self, _body: Json, number: int) -> tuple[int, Json]:
        return 200, {"droplet": self._droplet(self._known(number))}

    def list_droplets(self, _body: Json) -> tuple[int, Json]:
        return 200, _page("droplets", [self._droplet(one) for one in self.droplets.values()])

    def delete_droplet(self, _body: Json, number: int) -> tuple[int, None]:
        gone = self._known(number)
        del self.droplets[number]
        # Whatever its event is at, the machine goes after it.
        self._events.submit(self._destroy, gone)
        return 204, None

    def droplet_action(self, body: Json, number: int) -> tuple[int, Json]:
        one = self._known(number)
        kind = str(body.get("type"))
        if one.busy:
            raise _unprocessable("Droplet already has a pending event.")
        assert one.instance
        machine = one.instance

        def shutdown() -> None:
            self.hypervisor.power_off(machine)
            one.status = "off"

        def power_off() -> None:
            self.hypervisor.cut_power(machine)
            one.status = "off"

        def snapshot() -> None:
            made = next(self._numbers)
            taken = self.hypervisor.snapshot(machine)
            disk = SIZES[one.size][2]
            self.snapshots[made] = Image(made, str(body.get("name")), [one.region], disk, one.id, _now(), taken)

        events = {"shutdown": shutdown, "power_off": power_off, "snapshot": snapshot}
        if kind not in events:
            raise _unprocessable("The event type you specified is invalid.")
        if kind in ("shutdown", "power_off") and one.status == "off":
            raise _unprocessable("Droplet is already powered off.")
        if kind == "snapshot" and one.status != "off":
            raise _unprocessable("Droplet is currently on. Please power it off to run this event.")
        return 201, {"action": self._begin(one, kind, events[kind])}

    def get_action(self, _body: Json, *numbers: int) -> tuple[int, Json]:
        if numbers[-1] not in self._actions:
            raise NOT_FOUND
        return 200, {"action": dict(self._actions[numbers[-1]])}

    def droplet_snapshots(self, _body: Json, number: int) -> tuple[int, Json]:
        found = [self._image_json(one) for one in self.snapshots.values() if one.droplet == number]
        return 200, _page("snapshots", found)

    # Snapshots, which are images, too

    def list_snapshots(self, _body: Json) -> tuple[int, Json]:
        found = [
            {**self._image_json(one), "id": str(one.id), "resource_id": str(one.droplet), "resource_type": "droplet"}
            for one in self.snapshots.values()
        ]
        return 200, _page("snapshots", found)

    def get_image(self, _body: Json, number: int) -> tuple[int, Json]:
        if number not in self.snapshots:
            raise NOT_FOUND
        return 200, {"image": self._image_json(self.snapshots[number])}

    def image_action(self, body: Json, number: int) -> tuple[int, Json]:
        if number not in self.snapshots:
            raise NOT_FOUND
        image, region = self.snapshots[number], body.get("region")
        if body.get("type") != "transfer" or region not in REGIONS:
            raise _unprocessable("The event type you specified is invalid.")
        image.regions.append(region)
        return 201, {"action": self._action("transfer", number, "image", region, "completed")}

    def delete_image(self, _body: Json, number: int) -> tuple[int, None]:
        if number not in self.snapshots:
            raise NOT_FOUND
        self.hypervisor.delete(self.snapshots.pop(number).snapshot)
        return 204, None

    # Inside

    def _known(self, number: int) -> Droplet:
        if number not in self.droplets:
            raise NOT_FOUND
        return self.droplets[number]

    def _image(self, wanted: Any, region: str, size: str) -> tuple[Json, tuple[Path, ...]]:
        if wanted in self._stock:
            return {"id": 1, "slug": wanted, "name": wanted, "type": "base", "public": True}, self._stock[wanted]
        # Clients send numbers as numbers or as text.
        image = self.snapshots.get(int(wanted)) if str(wanted).isdigit() else None
        if not image:
            raise _unprocessable("You specified an invalid image for Droplet creation.")
        if region not in image.regions:
            raise _unprocessable("The image you specified is not available in the selected region.")
        if SIZES[size][2] < image.disk:
            raise _unprocessable("The image's disk is larger than that of the size you specified.")
        return self._image_json(image), image.snapshot.lower

    def _key(self, wanted: Any) -> str:
        for number, key in self.keys.items():
            if str(wanted) in (str(number), key["fingerprint"]):
                return str(key["public_key"])
        raise _unprocessable(f"{wanted} are invalid key identifiers for Droplet creation.")

    def _begin(self, one: Droplet, kind: str, work: Callable[[], None]) -> Json:
        """Let an event happen; returns its action as it is at first."""
        one.busy = True
        self.events.append(kind)
        action = self._action(kind, one.id, "droplet", one.region, "in-progress")
        errored = kind in self.faults.errored

        def run() -> None:
            status = "errored"
            try:
                time.sleep(self.faults.seconds.get(kind, 0))
                if not errored:
                    work()
                    status = "completed"
            except Exception:
                logging.getLogger(__name__).exception("event %s of droplet %s", kind, one.name)
            finally:
                with self._lock:
                    self._actions[action["id"]] |= {"status": status, "completed_at": _now()}
                    one.busy = False

        begun = dict(action)
        one.event = self._events.submit(run)
        return begun

    def _destroy(self, one: Droplet) -> None:
        if one.event:
            wait([one.event])
        if one.instance:
            self.hypervisor.destroy(one.instance)

    def _action(self, kind: str, resource: int, resource_type: str, region: str, status: str) -> Json:
        number = next(self._numbers)
        self._actions[number] = {
            "id": number,
            "status": status,
            "type": kind,
            "started_at": _now(),
            "completed_at": _now() if status == "completed" else None,
            "resource_id": resource,
            "resource_type": resource_type,
            "region": _region(region),
            "region_slug": region,
        }
        return self._actions[number]

    def _droplet(self, one: Droplet) -> Json:
        processors, memory, disk = SIZES[one.size]
        networks: list[Json] = []
        if one.instance:
            place = one.instance.place
            networks.append(
                {
                    "ip_address": place.address,
                    "netmask": str(place.network.subnet.netmask),
                    "gateway": place.network.gateway,
                    "type": "public",
                }
            )
        return {
            "id": one.id,
            "name": one.name,
            "memory": memory,
            "vcpus": processors,
            "disk": disk,
            "locked": one.busy,
            "status": one.status,
            "kernel": None,
            "created_at": one.created,
            "features": [],
            "backup_ids": [],
            "next_backup_window": None,
            "snapshot_ids": [image.id for image in self.snapshots.values() if image.droplet == one.id],
            "image": one.image,
            "volume_ids": [],
            "size": {"slug": one.size, "memory": memory, "vcpus": processors, "disk": disk, "available": True},
            "size_slug": one.size,
            "networks": {"v4": networks, "v6": []},
            "region": _region(one.region),
            "tags": one.tags,
        }

    def _image_json(self, image: Image) -> Json:
        return {
            "id": image.id,
            "name": image.name,
            "type": "snapshot",
            "distribution": "Debian",
            "slug": None,
            "public": False,
            "regions": image.regions,
            "min_disk_size": image.disk,
            "size_gigabytes": 1.0,
            "created_at": image.created,
            "status": "available",
        }


Route = Callable[..., tuple[int, Json | None]]
ROUTES: list[tuple[str, str, Route]] = [
    ("POST", r"/v2/account/keys", DigitalOcean.create_key),
    ("DELETE", r"/v2/account/keys/(\d+)", DigitalOcean.delete_key),
    ("POST", r"/v2/droplets", DigitalOcean.create_droplet),
    ("GET", r"/v2/droplets", DigitalOcean.list_droplets),
    ("GET", r"/v2/droplets/(\d+)", DigitalOcean.get_droplet),
    ("DELETE", r"/v2/droplets/(\d+)", DigitalOcean.delete_droplet),
    ("POST", r"/v2/droplets/(\d+)/actions", DigitalOcean.droplet_action),
    ("GET", r"/v2/droplets/(\d+)/actions/(\d+)", DigitalOcean.get_action),
    ("GET", r"/v2/droplets/(\d+)/snapshots", DigitalOcean.droplet_snapshots),
    ("GET", r"/v2/actions/(\d+)", DigitalOcean.get_action),
    ("GET", r"/v2/snapshots", DigitalOcean.list_snapshots),
    ("DELETE", r"/v2/snapshots/(\d+)", DigitalOcean.delete_image),
    ("GET", r"/v2/images/(\d+)", DigitalOcean.get_image),
    ("DELETE", r"/v2/images/(\d+)", DigitalOcean.delete_image),
    ("POST", r"/v2/images/(\d+)/actions", DigitalOcean.image_action),
    ("GET", r"/v2/images/(\d+)/actions/(\d+)", DigitalOcean.get_action),
]


class _Handler(BaseHTTPRequestHandler):
    owner: DigitalOcean
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            try:
                body = json.loads(text or b"{}")
            except ValueError:
                raise Refusal(400, "bad_request", "The request body is not valid JSON.") from None
            path = urlsplit(self.path).path.rstrip("/")
            status, answer = self.owner.answer(self.command, path, token if scheme == "Bearer" else "", body)
        except Refusal as refusal:
            status, answer = refusal.status, {"id": refusal.kind, "message": str(refusal)}
        self.send_response(status)
        for name, value in {"RateLimit-Limit": "5000", "RateLimit-Remaining": "4816"}.items():
            self.send_header(name, value)
        content = b"" if answer is None else json.dumps(answer).encode()
        if answer is not None:
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names are given

    def log_message(self, format: str, *args: object) -> None:
        pass


def _page(name: str, items: list[Json]) -> Json:
    return {name: items, "links": {}, "meta": {"total": len(items)}}


def _region(slug: str) -> Json:
    return {"slug": slug, "name": REGIONS[slug], "available": True, "features": ["metadata"], "sizes": list(SIZES)}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
