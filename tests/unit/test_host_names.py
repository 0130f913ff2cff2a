"""The names that an instance knows itself by: the owner's, the machine's and its platform's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance.choose import configure, host_names
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.places import PROGRAMS, Places
from tests.support import appliance
from tests.support.appliance import MANIFEST


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


def machine(places: Places, hostname: str, hosts: str = "") -> None:
    places.hosts.parent.mkdir(parents=True, exist_ok=True)
    places.hostname.write_text(f"{hostname}\n")
    places.hosts.write_text(hosts)


def cloud(places: Places, ds: Any) -> None:
    places.cloud_run.mkdir(parents=True, exist_ok=True)
    (places.cloud_run / "instance-data.json").write_text(json.dumps({"ds": ds, "v1": {}}))


def names(places: Places, **choice: Any) -> tuple[str, ...]:
    return host_names.of(places, MANIFEST, Choice(**choice))


def test_without_anything_there_are_none(places: Places) -> None:
    assert names(places) == ()


def test_those_that_the_owner_lists_and_the_domain(places: Places) -> None:
    assert names(places, domain="ai.example.com", host_names="*.example.org,box,a.example.net,ai.example.com") == (
        "*.example.org",
        "a.example.net",
        "ai.example.com",
    )


@pytest.mark.parametrize(
    ("hostname", "hosts", "found"),
    [
        (
            "box",
            "127.0.0.1 localhost\n127.0.1.1 Box.Example.com box\n10.0.0.9 other.example.com\n",
            ["box.example.com"],
        ),
        ("box.example.com", "", ["box.example.com"]),
        (
            "box",
            "127.0.1.1 box.example.com box # a.evil.example\n# 127.0.1.1 b.evil.example box\n",
            ["box.example.com"],
        ),
        ("box", "203.0.113.9 inbox.example.com inbox\n", []),
        ("", "127.0.0.1 localhost\n1.2.3.4\n\n", []),
        ("box", '127.0.0.1 box a"b.example c;.example x..y 10.0.0.1 *.example.com\n', ["10.0.0.1"]),
    ],
)
def test_those_of_the_machine(places: Places, hostname: str, hosts: str, found: list[str]) -> None:
    machine(places, hostname, hosts)
    assert names(places) == tuple(found)


@pytest.mark.parametrize(
    ("ds", "found"),
    [
        (
            {
                "meta_data": {
                    "public-hostname": "ec2-203-0-113-7.eu-west-1.compute.amazonaws.com",
                    "local-hostname": "ip-10-0-0-7.eu-west-1.compute.internal",
                    "hostname": "ip-10-0-0-7.eu-west-1.compute.internal",
                }
            },
            ["ec2-203-0-113-7.eu-west-1.compute.amazonaws.com", "ip-10-0-0-7.eu-west-1.compute.internal"],
        ),
        ({"meta_data": {"public_hostname": "a.example"}}, ["a.example"]),
        (
            {"meta_data": {"hostname": "a.novalocal"}, "ec2_metadata": {"public-hostname": "b.example"}},
            ["a.novalocal", "b.example"],
        ),
        ({"meta_data": {"local-hostname": "*.example", "hostname": 'x"";}.example', "public-hostname": ["a.b"]}}, []),
        ({"meta_data": "text"}, []),
        ("redacted", []),
        (None, []),
    ],
)
def test_those_of_the_cloud(places: Places, ds: Any, found: list[str]) -> None:
    cloud(places, ds)
    assert names(places) == tuple(found)


def test_those_of_a_containers_platform(places: Places) -> None:
    places.environment.parent.mkdir(parents=True, exist_ok=True)
    places.environment.write_text(json.dumps({"RUNPOD_POD_ID": "abc123"}))
    assert names(places) == ("abc123-3000.proxy.runpod.net", "abc123-8000.proxy.runpod.net")


@pytest.mark.parametrize("contained", [False, True])
def test_the_gateway_hears_of_them(places: Places, contained: bool) -> None:
    if contained:
        catalogue = places.opt / PROGRAMS.parent.name / PROGRAMS.name
        catalogue.parent.mkdir()
        catalogue.write_text("{}")
    rendered = places.etc / "nginx" / "host-names.conf"
    configure.apply(places, MANIFEST)
    assert not rendered.exists()
    appliance.options(places, "host_names: [b.example, '*.a.example', https://c.example]\n")
    outcome = configure.apply(places, MANIFEST)
    assert rendered.read_text() == '*.a.example "";\nb.example "";\n'
    assert configure.services_to_reload(outcome) == ("nginx.service",)
    assert [problem.option for problem in outcome.deployment.problems if problem.option] == ["host_names"]
    assert configure.services_to_reload(configure.apply(places, MANIFEST)) == ()
