"""What is asked of EC2 after a bake, as it arrives there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from aisandbox.builder.errors import BuildError
from aisandbox.builder.targets import aws

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
DONE = "<ModifyImageAttributeResponse><return>true</return></ModifyImageAttributeResponse>"
REFUSED = """<Response><Errors><Error><Code>UnauthorizedOperation</Code>
<Message>You are not authorized.</Message></Error></Errors></Response>"""


class Ec2(BaseHTTPRequestHandler):
    """The answer to one kind of question; keeps what was asked."""

    asked: list[dict[str, str]]
    refuses = False

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append({name: values[0] for name, values in parse_qs(text).items()})
        content = (REFUSED if self.refuses else DONE).encode()
        self.send_response(403 if self.refuses else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ec2() -> Iterator[tuple[type[Ec2], str]]:
    handler = type("Handler", (Ec2,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_ami_requires_version_2_of_the_metadata_service(ec2: tuple[type[Ec2], str]) -> None:
    handler, url = ec2
    aws.require_imdsv2("us-east-1:ami-1", {"custom_endpoint_ec2": url}, CREDENTIALS)
    (asked,) = handler.asked
    assert asked["Action"] == "ModifyImageAttribute"
    assert (asked["ImageId"], asked["ImdsSupport.Value"]) == ("ami-1", "v2.0")


def test_a_refusal_says_what_to_do(ec2: tuple[type[Ec2], str]) -> None:
    handler, url = ec2
    handler.refuses = True
    with pytest.raises(BuildError, match=r"ami-1 is made.*not authorized") as caught:
        aws.require_imdsv2("eu-west-1:ami-1", {"custom_endpoint_ec2": url, "region": "eu-west-1"}, CREDENTIALS)
    assert caught.value.fix.startswith("aws ec2 modify-image-attribute --region eu-west-1 --image-id ami-1")
