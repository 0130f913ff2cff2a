"""Every place that options can come from besides the file and cloud-config, against doubles that speak its protocol."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aisandbox.instance.choose import options
from aisandbox.instance.choose.options import Choice, clouds, deployment
from aisandbox.instance.places import METADATA, Places
from tests.support import appliance, metadata
from tests.support.appliance import MANIFEST
from tests.support.metadata import Cloud, Double

KEY = "long-enough-for-a-key"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def on(places: Places, stack: ExitStack, cloud_id: str, cloud: Cloud) -> tuple[Places, Double]:
    """The appliance on that cloud."""
    places.cloud_run.mkdir(parents=True, exist_ok=True)
    (places.cloud_run / "cloud-id").write_text(f"{cloud_id}\n")
    places.instance_id.parent.mkdir(parents=True, exist_ok=True)
    places.instance_id.write_text("i-0123\n")
    double = stack.enter_context(metadata.serving(cloud))
    return dataclasses.replace(places, metadata=double.address), double


def origin(places: Places, key: str) -> str | None:
    return options.decide(options.sources(places, MANIFEST), MANIFEST).origins.get(key)


# StackScript


def test_variables_of_a_stackscript(places: Places) -> None:
    places.etc.mkdir(parents=True)
    places.udf.write_text(
        f"""PATH=/usr/bin:/bin
MODEL="Org/Name"
export max_model_len='4096'
declare -x SERVED_NAME="mine"
AISANDBOX_SANDBOX=public
API_KEY_PASSWORD={KEY}
CHAT_PASSWORD="a\\"b\\$c\\`d\\\\e!1"
REVISION=
DOMAIN=""
broken line
$(touch {places.root}/executed)
VLLM_ARGS="$(touch {places.root}/executed)"
"""
    )
    choice, problems = options.read(places, MANIFEST)
    assert (choice.model, choice.max_model_len, choice.served_name) == ("Org/Name", 4096, "mine")
    assert (choice.sandbox, choice.revision, choice.domain) == ("public", None, None)
    assert choice.api_key
    assert choice.api_key.get_secret_value() == KEY
    assert choice.chat_password
    assert choice.chat_password.get_secret_value() == 'a"b$c`d\\e!1'
    assert [problem.option for problem in problems] == ["vllm_args"]
    assert origin(places, "model") == "StackScript"
    assert not (places.root / "executed").exists()


@pytest.mark.parametrize(
    "shell", ["bash -c 'env'", "bash -c 'export -p'", "dash -c 'export -p'", "bash -c 'declare -x'"]
)
@pytest.mark.parametrize("password", ["plain-password", 'it\'s "quoted"$HOME`id`\\!'])
def test_what_shells_print_is_read_back(places: Places, shell: str, password: str) -> None:
    environment = {"PATH": os.environ["PATH"], "CHAT_PASSWORD": password, "MODEL": "Org/Name"}
    printed = subprocess.run(shell, shell=True, env=environment, capture_output=True, text=True, check=True).stdout  # noqa: S602
    places.etc.mkdir(parents=True)
    places.udf.write_text(printed)
    (source,) = deployment.stackscript(places, MANIFEST)
    assert source.values == {"chat_password": password, "model": "Org/Name"}


# Kernel


def test_the_kernel_command_line(places: Places) -> None:
    places.kernel_command_line.parent.mkdir(parents=True)
    places.kernel_command_line.write_text(
        "BOOT_IMAGE=/vmlinuz root=/dev/vda1 aisandbox.model=Org/Name aisandbox.max-model-len=4096 quiet "
        'aisandbox.vllm_args="--seed 1 --enforce-eager" "aisandbox.allowed_cidrs=10.0.0.0/8 ::1" notaisandbox.model=x\n'
    )
    choice, problems = options.read(places, MANIFEST)
    assert choice == Choice(
        model="Org/Name",
        max_model_len=4096,
        vllm_args="--seed 1 --enforce-eager",
        allowed_cidrs="10.0.0.0/8,::1/128",
    )
    assert problems == ()
    assert origin(places, "model") == "kernel command line"


# Metadata services


def test_vultr_variables(places: Places, stack: ExitStack) -> None:
    variables = {"model": "Org/Name\n", "api_key": KEY, "revision": " ", "other": "x"}
    places, double = on(places, stack, "vultr", metadata.vultr(variables))
    choice, problems = options.read(places, MANIFEST)
    assert choice.model == "Org/Name"
    assert choice.api_key
    assert problems == ()
    assert origin(places, "model") == "Vultr variables"
    asked = {request.path for request in double.requests}
    assert asked == {f"/v1/internal/app-{key}" for key in MANIFEST.options_by_key}


def test_gcp_attributes(places: Places, stack: ExitStack) -> None:
    attributes = {
        "aisandbox-model": "Org/Name",
        "aisandbox-max-model-len": "4096",
        "aisandbox_served_name": "mine",
        "aisandbox-revision": "",
        "aisandbox-modle": "x",
        "model": "none/ours",
        "ssh-keys": "debian:ssh-ed25519 AAAA",
    }
    places, double = on(places, stack, "gce", metadata.gcp(attributes))
    choice, problems = options.read(places, MANIFEST)
    assert choice == Choice(model="Org/Name", max_model_len=4096, served_name="mine")
    assert [problem.option for problem in problems] == ["modle"]
    assert origin(places, "model") == "GCP instance attributes"
    assert len(double.requests) == 2


def test_aws_tags_and_bare_user_data(places: Places, stack: ExitStack) -> None:
    tags = {
        "Name": "my box",
        "aisandbox:model": "Tag/Model",
        "aisandbox:max_model_len": "4096",
        "aisandbox:x/../y": "1",
    }
    places, double = on(places, stack, "aws", metadata.aws('{"model": "User/Model", "served_name": "mine"}', tags))
    choice, problems = options.read(places, MANIFEST)
    assert choice == Choice(model="User/Model", served_name="mine", max_model_len=4096)
    assert problems == ()
    assert origin(places, "model") == "AWS user-data"
    assert origin(places, "max_model_len") == "AWS tags"
    assert not any("Name" in request.path or ".." in request.path for request in double.requests)


def test_aws_does_not_ask_for_user_data_that_cloud_init_has_brought(places: Places, stack: ExitStack) -> None:
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model}\n", "user-data.txt")
    places, double = on(places, stack, "aws", metadata.aws("model: Other/Model", {}))
    assert options.read(places, MANIFEST) == (Choice(), ())
    assert not any(request.path == "/latest/user-data" for request in double.requests)


@pytest.mark.parametrize(
    "cloud", [metadata.aws(), metadata.aws(disabled=True), metadata.aws("#cloud-config\nmodel: x\n", {})]
)
def test_aws_without_options(places: Places, stack: ExitStack, cloud: Cloud) -> None:
    places, _ = on(places, stack, "aws-cn", cloud)
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_azure_user_data(places: Places, stack: ExitStack) -> None:
    places, _ = on(places, stack, "azure", metadata.azure("aisandbox:\n  model: Org/Name\n"))
    assert options.read(places, MANIFEST) == (Choice(model="Org/Name"), ())
    assert origin(places, "model") == "Azure user data"


def test_azure_custom_data_comes_by_cloud_init(places: Places, stack: ExitStack) -> None:
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: Custom/Model}\n")
    places, _ = on(places, stack, "azure", metadata.azure("model: User/Model\nserved_name: mine\n"))
    assert options.read(places, MANIFEST) == (Choice(model="Custom/Model", served_name="mine"), ())


@pytest.mark.parametrize("cloud", [metadata.azure(), metadata.gcp(), metadata.vultr()])
def test_nothing_given_is_nothing_wrong(places: Places, stack: ExitStack, cloud: Cloud) -> None:
    name = {"azure": "azure", "gcp": "gce", "vultr": "vultr"}[cloud.__qualname__.partition(".")[0]]
    places, _ = on(places, stack, name, cloud)
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_precedence(places: Places, stack: ExitStack) -> None:
    """One more option from each source than from the one before."""
    keys = ["model", "revision", "served_name", "max_model_len", "quantization", "domain"]
    values = {"max_model_len": "4096", "quantization": "fp8", "domain": "ai.example.com"}
    given = [{key: values.get(key, f"{place}/x") for key in keys[: place + 1]} for place in range(len(keys))]
    appliance.options(places, json.dumps(given[0]))
    appliance.cloud_config(places, "#cloud-config\n" + json.dumps({"aisandbox": given[1]}))
    appliance.cloud_config(places, "#cloud-config\n" + json.dumps({"aisandbox": given[2]}), "vendor-cloud-config.txt")
    places.udf.write_text("".join(f"{key}={value}\n" for key, value in given[3].items()))
    places.kernel_command_line.parent.mkdir(parents=True)
    places.kernel_command_line.write_text(" ".join(f"aisandbox.{key}={value}" for key, value in given[5].items()))
    places, _ = on(places, stack, "gce", metadata.gcp({f"aisandbox-{k}": v for k, v in given[4].items()}))
    decision = options.decide(options.sources(places, MANIFEST), MANIFEST)
    assert decision.problems == ()
    assert [decision.origins[key] for key in keys] == [
        str(places.options),
        "user-data",
        "vendor-data",
        "StackScript",
        "GCP instance attributes",
        "kernel command line",
    ]


# Which service may be asked


@pytest.mark.parametrize(
    ("cloud_id", "dmi", "cloud"),
    [
        ("aws", {}, "aws"),
        ("aws-gov", {}, "aws"),
        ("gce", {}, "gcp"),
        ("azure", {}, "azure"),
        ("vultr", {}, "vultr"),
        ("nocloud", {"sys_vendor": "Amazon EC2"}, None),
        ("digitalocean", {"product_name": "Google Compute Engine"}, None),
        ("openstack", {}, None),
        ("none", {"sys_vendor": "Amazon EC2"}, "aws"),
        (None, {"product_name": "Google Compute Engine"}, "gcp"),
        (None, {"sys_vendor": "Microsoft Corporation"}, None),
        (None, {"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, "azure"),
        (None, {"sys_vendor": "Vultr"}, "vultr"),
        (None, {"sys_vendor": "QEMU"}, None),
        (None, {}, None),
    ],
)
def test_only_the_service_of_the_own_cloud_is_asked(
    places: Places, cloud_id: str | None, dmi: dict[str, str], cloud: str | None
) -> None:
    for folder, entries in ((places.cloud_run, {"cloud-id": cloud_id} if cloud_id else {}), (places.dmi, dmi)):
        folder.mkdir(parents=True)
        for file, text in entries.items():
            (folder / file).write_text(f"{text}\n")
    assert clouds.platform(places) == cloud


def test_instance_data_tells_the_cloud_as_well(places: Places) -> None:
    places.cloud_run.mkdir(parents=True)
    (places.cloud_run / "instance-data.json").write_text(json.dumps({"v1": {"cloud_id": "gce"}}))
    assert clouds.platform(places) == "gcp"


def test_elsewhere_no_request_leaves(places: Places, stack: ExitStack) -> None:
    places, double = on(places, stack, "nocloud", metadata.gcp({"aisandbox-model": "Org/Name"}))
    assert options.read(places, MANIFEST) == (Choice(), ())
    assert double.requests == []


def test_only_the_machine_itself_asks_the_real_address(tmp_path: Path) -> None:
    assert Places.of(MANIFEST).metadata == METADATA
    assert Places.of(MANIFEST, tmp_path).metadata is None


def test_no_proxy_is_used(places: Places, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    places, _ = on(places, stack, "gce", metadata.gcp({"aisandbox-model": "Org/Name"}))
    assert options.read(places, MANIFEST)[0].model == "Org/Name"


# Misbehaviour


FAULTS = {
    "slow": {"delay_s": 30},
    "drip": {"drip_s": 0.1, "body": b"x" * 10000},
    "endless head": {"drip_head": True},
    "endless": {"endless": True},
    "huge": {"body": b"x" * 3_000_000},
    "cut": {"cut": True, "body": b"x" * 1000},
    "redirect": {"redirect": "http://192.0.2.1/"},
    "unavailable": {"status": 503},
    "garbage": {"garbage": b"\x00\xff\r\n\r\n"},
    "hung up": {"garbage": b""},
}


@pytest.mark.parametrize("cloud_id", ["gce", "aws", "azure", "vultr"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_misbehaving_service_costs_two_seconds_at_most_and_is_told(
    places: Places, stack: ExitStack, cloud_id: str, fault: str
) -> None:
    cloud = {"gce": metadata.gcp(), "aws": metadata.aws(tags={}), "azure": metadata.azure(), "vultr": metadata.vultr()}
    places, double = on(places, stack, cloud_id, cloud[cloud_id])
    double.faults = metadata.Faults(**FAULTS[fault])  # type: ignore[arg-type]
    start = time.monotonic()
    choice, (problem,) = options.read(places, MANIFEST)
    assert time.monotonic() - start < 2.5  # 2 s, and a busy machine
    assert choice == Choice()
    assert "the cloud's metadata service" in problem.reason
    assert "sudo aisandbox configure" in problem.fix
    assert not places.kept_metadata.exists()


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00\x01" * 50, b"[]", b"null", b"{", b"[" * 100_000, b'{"aisandbox-model": {"a": [1]}}', b"<html>"],
)
@pytest.mark.parametrize("cloud_id", ["gce", "azure", "vultr"])
def test_hostile_answers_choose_nothing(places: Places, stack: ExitStack, cloud_id: str, body: bytes) -> None:
    places, double = on(
        places, stack, cloud_id, {"gce": metadata.gcp(), "azure": metadata.azure(), "vultr": metadata.vultr()}[cloud_id]
    )
    double.faults = metadata.Faults(body=body, status=200)
    choice, problems = options.read(places, MANIFEST)
    assert (choice.model, choice.hf_token, choice.api_key, choice.allowed_cidrs) == (None, None, None, None)
    assert all(str(problem).isprintable() for problem in problems)


def test_who_has_chosen_since_is_not_told_about_the_service(places: Places, stack: ExitStack) -> None:
    places, double = on(places, stack, "gce", metadata.gcp())
    double.faults.status = 500
    appliance.options(places, "model: Org/Name\n")
    assert options.read(places, MANIFEST) == (Choice(model="Org/Name"), ())


# Later boots


@pytest.mark.parametrize(
    ("cloud_id", "cloud"),
    [
        ("gce", metadata.gcp({"aisandbox-model": "Org/Name", "aisandbox-hf_token": "hf_abcdefgh12345678"})),
        ("vultr", metadata.vultr({"model": "Org/Name", "hf_token": "hf_abcdefgh12345678"})),
        ("aws", metadata.aws("model: Org/Name", {"aisandbox:hf_token": "hf_abcdefgh12345678"})),
        ("azure", metadata.azure("model: Org/Name\nhf_token: hf_abcdefgh12345678")),
    ],
)
def test_without_network_the_choice_stays_the_same(
    places: Places, stack: ExitStack, cloud_id: str, cloud: Cloud
) -> None:
    places, double = on(places, stack, cloud_id, cloud)
    first = options.read(places, MANIFEST)
    assert first[0].model == "Org/Name"
    assert first[0].hf_token
    assert stat.S_IMODE(places.kept_metadata.stat().st_mode) == 0o600
    before = places.kept_metadata.read_bytes()
    assert options.read(places, MANIFEST) == first
    assert places.kept_metadata.read_bytes() == before
    double.faults.status = 503
    assert options.read(places, MANIFEST) == first
    # Another instance with this disk has not been told so.
    places.instance_id.write_text("i-9999\n")
    choice, (problem,) = options.read(places, MANIFEST)
    assert choice == Choice()
    assert "metadata service" in problem.reason


def test_a_changed_answer_replaces_the_kept_one(places: Places, stack: ExitStack) -> None:
    attributes = {"aisandbox-model": "Org/One"}
    places, double = on(places, stack, "gce", metadata.gcp(attributes))
    options.read(places, MANIFEST)
    attributes["aisandbox-model"] = "Org/Two"
    assert options.read(places, MANIFEST)[0].model == "Org/Two"
    double.faults.status = 503
    assert options.read(places, MANIFEST)[0].model == "Org/Two"


@pytest.mark.parametrize(
    "damage", ["", "{", '{"answers": 1}', '{"platform": "gcp", "instance": "i-0123", "answers": {"x": 1}}']
)
def test_damaged_kept_answers_are_no_answers(places: Places, stack: ExitStack, damage: str) -> None:
    places, double = on(places, stack, "gce", metadata.gcp({"aisandbox-model": "Org/Name"}))
    double.faults.status = 503
    places.etc.mkdir(parents=True)
    places.kept_metadata.write_text(damage)
    assert options.read(places, MANIFEST)[0] == Choice()


def test_a_source_that_cannot_be_read_leaves_the_others(places: Places) -> None:
    appliance.options(places, "")
    (places.cloud_run / "combined-cloud-config.json").mkdir(parents=True)
    places.udf.write_text("MODEL=Org/Name\n")
    choice, (problem, *closed) = options.read(places, MANIFEST)
    assert choice.model == "Org/Name"
    assert {other.option for other in closed} == choice.closed == options.source.GUARDS
    assert problem.source == "user-data"
    assert "could not be read (IsADirectoryError" in problem.reason


ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.lists(
        st.sampled_from(
            [
                "model:",
                " Org/Name",
                "\n",
                "aisandbox:",
                "api_key",
                "=",
                '"',
                "'",
                "{",
                "}",
                "[",
                "- ",
                "#",
                "&a ",
                "*a",
                "!!x ",
            ]
            + [
                "aisandbox.model=",
                "export ",
                "$(id)",
                "\\",
                "\t",
                "Content-Type: text/plain\n\n",
                "#cloud-config\n",
                "2026-99-99",
            ]
        ),
        max_size=25,
    ).map(lambda words: "".join(words).encode()),
)


@settings(max_examples=150, deadline=None)
@given(ANYTHING, st.integers(0, 6))
def test_whatever_a_file_holds_it_is_read_or_explained(raw: bytes, which: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        places = Places.of(MANIFEST, Path(folder))
        file = (
            places.options,
            places.udf,
            places.kernel_command_line,
            places.cloud_instance / "cloud-config.txt",
            places.cloud_instance / "user-data.txt",
            places.cloud_instance / "user-data.txt.i",
            places.cloud_run / "combined-cloud-config.json",
        )[which]
        file.parent.mkdir(parents=True)
        file.write_bytes(raw)
        _, problems = options.read(places, MANIFEST)
        assert all(str(problem).isprintable() and problem.fix for problem in problems)
        assert not any("could not be read" in problem.reason for problem in problems), problems
        options.keep(places)
