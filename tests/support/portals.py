"""Doubles of APIs that images are published by: DigitalOcean's Vendor Portal, Linode's StackScripts, AWS's Catalog.

They speak the real protocols, errors included, on a loopback port; `Portal.calls` keeps what they were asked.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in small letters."""
    body: Json


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json | bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Portal:
    """One platform's API while it serves."""

    answer: Callable[[Call], Answer]
    address: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: list[Answer] = field(default_factory=list)
    """Given instead of the next answers, one each."""

    def changes(self) -> list[Call]:
        """What would change something."""
        return [call for call in self.calls if call.method != "GET"]


@contextmanager
def serving(answer: Callable[[Call], Answer]) -> Iterator[Portal]:
    portal = Portal(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, url.path, query, headers, json.loads(raw) if raw else {})
            portal.calls.append(call)
            said = portal.faults.pop(0) if portal.faults else portal.answer(call)
            content = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in {"Content-Type": "application/json", **said.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PATCH = do_POST = do_PUT = handle_any

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    portal.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield portal
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def digitalocean(token: str, app: str, snapshots: Mapping[int, str], state: str = "active") -> Callable[[Call], Answer]:
    """The Vendor Portal with one app, and the images of the same account: their status by number."""

    def answer(call: Call) -> Answer:
        trace = {"x-request-id": str(uuid.uuid4())}
        if call.headers.get("authorization") != f"Bearer {token}":
            return Answer(401, {"id": "unauthorized", "message": "Unable to authenticate you"}, trace)
        if call.method == "GET" and call.path.startswith("/v2/images/"):
            number = int(call.path.rsplit("/", 1)[1])
            if number not in snapshots:
                return Answer(
                    404, {"id": "not_found", "message": "The resource you requested could not be found."}, trace
                )
            image = {"id": number, "name": f"image-{number}", "type": "snapshot", "status": snapshots[number]}
            return Answer(200, {"image": image}, trace)
        if call.method == "PATCH" and call.path == f"/api/v1/vendor-portal/apps/{app}":
            if state != "active":
                return Answer(400, {"message": f"app is {state} and cannot be updated"}, trace)
            if not isinstance(call.body.get("imageId"), int) or not call.body.get("reasonForUpdate"):
                return Answer(400, {"message": "imageId and reasonForUpdate are required"}, trace)
            return Answer(200, {"app": {"id": app, "status": "pending", "version": call.body.get("version")}}, trace)
        return Answer(404, {"id": "not_found", "message": "Not found"}, trace)

    return answer


def linode(token: str, images: tuple[str, ...], scripts: dict[int, Json]) -> Callable[[Call], Answer]:
    """StackScripts of an account, changed in place."""

    def answer(call: Call) -> Answer:
        if call.headers.get("authorization") != f"Bearer {token}":
            return Answer(401, {"errors": [{"reason": "Invalid Token"}]})
        if call.method == "GET" and call.path.startswith("/v4/images/"):
            image = call.path.removeprefix("/v4/images/")
            return Answer(200, {"id": image, "label": "ours"}) if image in images else _missing()
        if not call.path.startswith("/v4/linode/stackscripts"):
            return _missing()
        if not str(call.body.get("script", "")).startswith("#!"):
            return Answer(400, {"errors": [{"field": "script", "reason": "Script must begin with a shebang."}]})
        number = max(scripts, default=0) + 1 if call.method == "POST" else int(call.path.rsplit("/", 1)[1])
        if call.method == "PUT" and number not in scripts:
            return _missing()
        scripts[number] = call.body
        return Answer(200, {"id": number, **call.body})

    return answer


def _missing() -> Answer:
    return Answer(404, {"errors": [{"reason": "Not found"}]})


def aws_catalog(product: str, outcome: str = "SUCCEEDED") -> Callable[[Call], Answer]:
    """AWS Marketplace's Catalog with one product; a change set is decided at the third look."""
    sets: dict[str, list[str]] = {}
    entries: dict[str, Json] = {}
    tokens: dict[str, str] = {}

    def refuse(status: int, kind: str, words: str) -> Answer:
        headers = {"x-amzn-ErrorType": kind, "x-amzn-RequestId": str(uuid.uuid4())}
        return Answer(status, {"message": words}, headers)

    def answer(call: Call) -> Answer:
        if "/aws-marketplace/aws4_request" not in call.headers.get("authorization", ""):
            return refuse(403, "AccessDeniedException", "The request is not signed for this service")
        if call.path == "/StartChangeSet":
            entity = call.body["ChangeSet"][0]["Entity"]
            if entity != {"Type": "AmiProduct@1.0", "Identifier": product}:
                return refuse(404, "ResourceNotFoundException", f"Entity {entity['Identifier']} does not exist")
            name = tokens.setdefault(call.body["ClientRequestToken"], f"cs-{len(tokens)}")
            sets.setdefault(name, ["PREPARING", "APPLYING", outcome])
            entries[name] = call.body["ChangeSet"][0]
            return Answer(200, {"ChangeSetId": name, "ChangeSetArn": f"arn:aws:aws-marketplace:::{name}"})
        if call.path == "/DescribeChangeSet":
            states = sets[call.query["changeSetId"]]
            status = states.pop(0) if len(states) > 1 else states[0]
            error = {"ErrorCode": "SCAN_ERROR", "ErrorMessage": "The AMI holds a password."}
            return Answer(
                200,
                {
                    "ChangeSetId": call.query["changeSetId"],
                    "Status": status,
                    "ChangeSet": [
                        {"ChangeType": "AddDeliveryOptions", "ErrorDetailList": [error] * (status == "FAILED")}
                    ],
                },
            )
        return refuse(404, "ResourceNotFoundException", call.path)

    return answer
