"""Reading and checking the user's choice."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from aisandbox.instance import options
from aisandbox.instance.options import Choice, InvalidOptionError
from aisandbox.instance.places import Places
from tests.support import appliance
from tests.support.appliance import MANIFEST

TOKEN = "hf_abcdefgh12345678"
# As cloud-init 22.4.2 leaves a message of three parts whose second is broken.
MULTIPART = """\
Content-Type: multipart/mixed; boundary="===1=="
MIME-Version: 1.0
Number-Attachments: 3

--===1==
Content-Type: text/cloud-config; charset="us-ascii"
MIME-Version: 1.0
Content-Disposition: attachment; filename="part-001"

#cloud-config
aisandbox:
  model: Org/One
--===1==
Content-Type: text/cloud-config; charset="us-ascii"
Content-Disposition: attachment; filename="part-002"

#cloud-config
aisandbox:
  model: [unclosed
--===1==
Content-Type: text/x-shellscript
Content-Disposition: attachment; filename="part-003"

#!/bin/sh
echo aisandbox:
--===1==--
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


def test_choice_has_one_field_for_each_option() -> None:
    assert set(Choice.model_fields) == set(MANIFEST.options_by_key)


def test_no_input_is_a_valid_choice(places: Places) -> None:
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_the_options_file_beats_user_data_beats_vendor_data(places: Places) -> None:
    appliance.options(places, "model: File/Model\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model, revision: user}\n")
    vendor = "#cloud-config\naisandbox: {model: Vendor/Model, revision: vendor, served_name: vendor}\n"
    appliance.cloud_config(places, vendor, "vendor-cloud-config.txt")
    choice, problems = options.read(places, MANIFEST)
    assert (choice.model, choice.revision, choice.served_name) == ("File/Model", "user", "vendor")
    assert not problems


def test_newer_cloud_init_keeps_everything_merged_in_one_file(places: Places) -> None:
    places.cloud_run.mkdir(parents=True)
    merged = {"aisandbox": {"model": "Merged/Model"}, "users": ["default"]}
    (places.cloud_run / "combined-cloud-config.json").write_text(json.dumps(merged))
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model}\n")
    assert options.read(places, MANIFEST)[0].model == "Merged/Model"


def test_the_file_may_hold_the_section_as_in_user_data(places: Places) -> None:
    appliance.options(places, "aisandbox:\n  model: Org/Name\n")
    assert options.read(places, MANIFEST)[0].model == "Org/Name"


@pytest.mark.parametrize("empty", ["", "''", "null", "'  '"])
def test_an_empty_value_returns_to_the_default_whatever_comes_after(places: Places, empty: str) -> None:
    appliance.options(places, f"model: {empty}\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model}\n")
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_a_bad_value_leaves_the_good_ones_and_the_next_source_decides(places: Places) -> None:
    appliance.options(places, "model: no-organisation\nmax_model_len: 4096\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model}\n")
    choice, (problem,) = options.read(places, MANIFEST)
    assert (choice.model, choice.max_model_len) == ("User/Model", 4096)
    assert (problem.option, problem.value, problem.source) == ("model", "no-organisation", str(places.options))
    assert "is not a valid model" in problem.reason
    assert "aisandbox configure --set model=Qwen/Qwen3-8B" in problem.fix


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("max_model_len", 4096, 4096),
        ("max_model_len", " 4096 ", 4096),
        ("revision", 1234567, "1234567"),
        ("model", " Org/Name\n", "Org/Name"),
        ("hub_endpoint", "https://hub.example:8443/path", "https://hub.example:8443/path"),
    ],
)
def test_good_values(key: str, raw: object, value: object) -> None:
    assert options.check(MANIFEST.options_by_key[key], raw) == value


@pytest.mark.parametrize(
    ("key", "raw", "reason"),
    [
        ("max_model_len", 255, "is less than 256"),
        ("max_model_len", 10485761, "is more than 10485760"),
        ("max_model_len", "32k", "is not a whole number"),
        ("max_model_len", True, "is not a whole number"),
        ("max_model_len", 4096.5, "is not a whole number"),
        ("model", ["Org/Name"], "is not text"),
        ("model", {"id": "Org/Name"}, "is not text"),
        ("revision", 1.1, "is not text"),
        ("model", "Org/Name\nEVIL=1", "is not a valid model"),
        ("hub_endpoint", "ftp://hub", "is not a valid model hub address"),
        ("hf_token", "secret", "is not a valid hugging face access token"),
    ],
)
def test_bad_values(key: str, raw: object, reason: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        options.check(MANIFEST.options_by_key[key], raw)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "raw", [0, 255, 256, 4096, 10485760, 10485761, "Org/Name", "Org", "a/b/c", "-/x", "main", TOKEN, "hf_"]
)
def test_the_rules_are_those_of_the_json_schema(raw: str | int) -> None:
    for option in MANIFEST.options:
        if (option.type == "integer") != isinstance(raw, int):
            continue
        allowed = jsonschema.Draft202012Validator(option.schema_()).is_valid(raw)
        try:
            options.check(option, raw)
        except InvalidOptionError:
            assert not allowed, option.key
        else:
            assert allowed, option.key


def test_secrets_never_show(places: Places) -> None:
    appliance.options(places, f"hf_token: {TOKEN}!\nhf_tokn: {TOKEN}\nmodel: Org/Name\n")
    choice, problems = options.read(places, MANIFEST)
    assert choice.hf_token is None
    assert len(problems) == 2
    assert TOKEN not in " ".join(problem.model_dump_json() + str(problem) for problem in problems)
    good = options.choose([options.Source("test", {"hf_token": TOKEN})], MANIFEST)[0]
    assert TOKEN not in repr(good)


def test_an_unknown_option_suggests_the_nearest(places: Places) -> None:
    appliance.options(places, "modle: Org/Name\nzzz: 1\n")
    _, (near, far) = options.read(places, MANIFEST)
    assert near.fix == "Did you mean model? Command: sudo aisandbox configure --set model=VALUE"
    assert far.fix.startswith("The options are model, revision")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: Org/Name\nrevision: [main\nserved_name: x\n", "line 3: not YAML"),
        ("model: Org/Name\n\trevision: main\n", "line 2: not YAML"),
        ("- model\n", "holds a list"),
        ("just words\n", "holds a str"),
        ("\x00\x01", "not YAML"),
    ],
)
def test_a_malformed_file_is_one_problem_and_user_data_still_counts(places: Places, text: str, reason: str) -> None:
    appliance.options(places, text)
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model}\n")
    choice, (problem,) = options.read(places, MANIFEST)
    assert choice.model == "User/Model"
    assert reason in problem.reason
    assert problem.source == str(places.options)


def test_a_part_that_cloud_init_dropped_is_reported(places: Places) -> None:
    appliance.cloud_config(
        places, "#cloud-config\n\n# from 1 files\n# part-001\n\n---\naisandbox:\n    model: Org/One\n...\n"
    )
    appliance.cloud_config(places, MULTIPART, "user-data.txt.i")
    choice, (problem,) = options.read(places, MANIFEST)
    assert choice.model == "Org/One"
    assert problem.source == "user-data, part-002"
    assert problem.reason.startswith("line 3: not YAML")


def test_what_the_user_settled_in_the_file_is_no_problem_any_more(places: Places) -> None:
    appliance.options(places, "model: File/Model\nmax_model_len: 4096\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: typo, max_model_leng: 5, zzz: 1}\n")
    appliance.cloud_config(places, MULTIPART, "user-data.txt.i")
    choice, (problem,) = options.read(places, MANIFEST)
    assert (choice.model, problem.option) == ("File/Model", "zzz")


def test_user_data_without_its_first_line_is_reported(places: Places) -> None:
    appliance.cloud_config(places, "")
    text = "Content-Type: text/plain\n\naisandbox:\n  model: Org/Name\n"
    appliance.cloud_config(places, text, "user-data.txt.i")
    _, (problem,) = options.read(places, MANIFEST)
    assert "the first line is not #cloud-config" in problem.reason


def test_a_section_that_is_no_mapping_is_reported(places: Places) -> None:
    appliance.cloud_config(places, "#cloud-config\naisandbox: Org/Name\n")
    _, (problem,) = options.read(places, MANIFEST)
    assert (problem.source, problem.reason) == ("user-data", "holds a str, not `key: value` lines")
