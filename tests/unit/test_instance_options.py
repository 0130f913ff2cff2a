"""Reading and checking the user's choice."""

from __future__ import annotations

import json
import re
import stat
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aisandbox.instance.choose import options
from aisandbox.instance.choose.options import Choice, InvalidOptionError
from aisandbox.instance.choose.options.rules import OFF
from aisandbox.instance.places import Places
from aisandbox.manifest import Option
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
    assert set(Choice.model_fields) - {"closed"} == set(MANIFEST.options_by_key)


def test_the_defaults_of_the_choice_are_those_of_the_manifest() -> None:
    choices = {option.key: option.default for option in MANIFEST.options if option.type == "choice"}
    assert {key: getattr(Choice(), key) for key in choices} == choices


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


# What the rules and the schema must agree on: values near those that are allowed, and any text at all.
NEAR = st.one_of(
    st.text(max_size=40),
    st.text("aA0/.-_:@~,+% \n", max_size=40),
    st.sampled_from([TOKEN, "hf_", "Org/Name", "a/b/c", "-/x", "off", "local", "LOCAL", "fp8", "me@example.com"]),
    st.sampled_from([f"{x.example}{tail}" for x in MANIFEST.options if x.example for tail in ("", "!", "/", "\n.")]),
)
EXACT = [option for option in MANIFEST.options if option.type not in ("cidrs", "names", "arguments", "integer")]


def allowed(option: Option, value: object) -> bool:
    import jsonschema  # half a second, in every process of the suite

    return bool(jsonschema.Draft202012Validator(option.schema_()).is_valid(value))


def accepted(option: Option, value: object) -> bool:
    try:
        options.check(option, value)
    except InvalidOptionError:
        return False
    return True


@given(NEAR.map(str.strip).filter(bool))
@example("FALSE")
@example("No")
def test_the_rules_of_texts_are_those_of_the_json_schema(text: str) -> None:
    for option in EXACT:
        # YAML has more spellings of off than the schema names.
        meant = "off" if "off" in (option.choices or ()) and text.lower() in OFF else text
        assert accepted(option, text) == allowed(option, meant), option.key


@given(st.integers() | st.integers(200, 300) | st.integers(10485700, 10485800))
def test_the_rules_of_numbers_are_those_of_the_json_schema(number: int) -> None:
    option = MANIFEST.options_by_key["max_model_len"]
    assert accepted(option, number) == allowed(option, number)


@given(NEAR | st.sampled_from(["10.0.0.0/8", "::/0", "--seed 1", "--seed=1 --no-enforce-eager"]))
def test_what_is_accepted_obeys_the_json_schema_in_every_option(text: str) -> None:
    for option in MANIFEST.options:
        try:
            value = options.check(option, text)
        except InvalidOptionError as invalid:
            assert invalid.reason
            assert invalid.fix
        else:
            assert value is None or allowed(option, value), option.key
            # Once checked, a value stays as it is.
            assert value is None or options.check(option, value) == value


def test_a_value_of_any_type_is_accepted_or_explained() -> None:
    for option in MANIFEST.options:
        for raw in (
            [],
            {},
            [1],
            {"a": 1},
            1.5,
            True,
            b"x",
            date(2026, 1, 1),
            "x" * 5000,
            10**5000,
            ["10.0.0.0/8"] * 99,
        ):
            try:
                options.check(option, raw)
            except InvalidOptionError as invalid:
                assert len(repr(options.problem(option, raw, invalid))) < 20000


def test_secrets_never_show(places: Places) -> None:
    appliance.options(places, f"hf_token: {TOKEN}!\nhf_tokn: {TOKEN}\nmodel: Org/Name\n")
    choice, problems = options.read(places, MANIFEST)
    assert choice.hf_token is None
    assert len(problems) == 2
    assert TOKEN not in " ".join(repr(problem) + str(problem) for problem in problems)
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


@pytest.mark.parametrize(
    "text",
    [
        "aisandbox:\n  model: Org/Name\n",
        "model: Org/Name\n",
        '{"model": "Org/Name"}',
        '{\n "aisandbox": {"model": "Org/Name"}\n}',
        "---\n# my model\nmodel: Org/Name\n",
    ],
)
def test_user_data_may_be_nothing_but_the_options(places: Places, text: str) -> None:
    appliance.cloud_config(places, "")
    appliance.cloud_config(places, text, "user-data.txt")
    choice, problems = options.read(places, MANIFEST)
    assert (choice.model, problems) == ("Org/Name", ())


@pytest.mark.parametrize(
    "text",
    [
        '{"ignition": {"version": "3.0"}}',
        "#!/bin/sh\nmodel: x\n",
        "just text",
        "a: 1\nb: 2\n",
        "domain: ai.example.com\nhosts: [a]\nroutes: {}\n",
        "## template: jinja\n#cloud-config\nmodel: {{ x }}\n",
        "MIME-Version: 1.0\nmodel: x\n",
    ],
)
def test_user_data_of_other_programs_is_none_of_ours(places: Places, text: str) -> None:
    appliance.cloud_config(places, text, "user-data.txt")
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_binary_user_data_is_none_of_ours(places: Places) -> None:
    places.cloud_instance.mkdir(parents=True)
    (places.cloud_instance / "user-data.txt").write_bytes(b"\x1f\x8b\x08\x00model: Org/Name\n\xff\xfe")
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_a_part_of_user_data_without_its_first_line_is_reported(places: Places) -> None:
    appliance.cloud_config(places, "")
    text = MULTIPART.replace("  model: [unclosed", "  served_name: x").replace(
        "text/x-shellscript\nContent", "text/plain\nContent"
    )
    appliance.cloud_config(
        places, text.replace("#!/bin/sh\necho aisandbox:", "aisandbox:\n  api_key: x"), "user-data.txt.i"
    )
    choice, (ignored, closed) = options.read(places, MANIFEST)
    assert ignored.source == "user-data, part-003"
    assert "the first line is not #cloud-config" in ignored.reason
    # It meant to set a key, so the API does not stand open.
    assert choice.closed == {"api_key"}
    assert closed.option == "api_key"


def test_a_section_that_is_no_mapping_is_reported(places: Places) -> None:
    appliance.cloud_config(places, "#cloud-config\naisandbox: Org/Name\n")
    _, (problem,) = options.read(places, MANIFEST)
    assert (problem.source, problem.reason) == ("user-data", "holds a str, not `key: value` lines")


CIDRS = MANIFEST.options_by_key["allowed_cidrs"]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("203.0.113.7, 2001:db8::/48", "203.0.113.7/32,2001:db8::/48"),
        ("10.0.0.0/8 192.168.0.0/16", "10.0.0.0/8,192.168.0.0/16"),
        ("2001:0DB8:0000::1", "2001:db8::1/128"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("10.0.0.1,10.0.0.1,", "10.0.0.1/32"),
        (["10.0.0.1", "::1"], "10.0.0.1/32,::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_networks_are_brought_into_one_spelling(raw: object, value: str) -> None:
    assert options.check(CIDRS, raw) == value


@pytest.mark.parametrize(
    ("raw", "reason", "usable"),
    [
        ("10.0.0.5/8", "10.0.0.5/8 is an address inside the network 10.0.0.0/8", None),
        ("10.0.0.0/8, home", "home is no network or address", "10.0.0.0/8"),
        ("10.0.0.0/33", "is no network", None),
        ("fe80::1%;drop", "is no network", None),
        (",", "holds no network", None),
        ([], "holds no network", None),
        ([1], "is not text", None),
        (",".join(f"10.0.0.{i}" for i in range(65)), "more than 64", ",".join(f"10.0.0.{i}/32" for i in range(64))),
    ],
)
def test_bad_networks_are_explained_and_the_good_ones_count(raw: object, reason: str, usable: str | None) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        options.check(CIDRS, raw)
    assert reason in caught.value.reason
    assert caught.value.usable == usable


NAMES = MANIFEST.options_by_key["host_names"]
LONG = ".".join(["a" * 60] * 4) + ".example.b"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("ai.example.com, proxy.example.net", "ai.example.com,proxy.example.net"),
        ("AI.Example.com. ai.example.COM", "ai.example.com"),
        ("*.Example.com", "*.example.com"),
        (["a.example.com", "*.b.example"], "a.example.com,*.b.example"),
        ("sandbox,open_webui", "sandbox,open_webui"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        (LONG, LONG),
        ([], None),
        ("", None),
    ],
)
def test_names_are_brought_into_one_spelling(raw: object, value: str | None) -> None:
    assert len(LONG) <= 253
    assert options.check(NAMES, raw) == value


@pytest.mark.parametrize(
    ("raw", "reason", "usable"),
    [
        ("https://ai.example.com/", "leave out scheme, port and path", None),
        ("ai.example.com:443", "leave out scheme, port and path", None),
        ("203.0.113.7, ai.example.com", "203.0.113.7 is an address, and addresses need no entry", "ai.example.com"),
        ("::1 [2001:db8::7]", "[2001:db8::7] is an address", None),
        ("*", "* is not a host name", None),
        ("*.com", "*.com would be every name of a top-level domain", None),
        ("a.*.example.com", "is not a host name", None),
        ("*example.com", "is not a host name", None),
        ("-a.example.com", "is not a host name", None),
        ("a..example.com", "is not a host name", None),
        ("b\u00fccher.example", "write it as browsers send it", None),
        (f"{'a' * 64}.example", "is not a host name", None),
        (f"{LONG}.{'c' * 9}", "is not a host name", None),
        ('a.example "";} server {, b.example', '"";} is not a host name', "a.example,server,b.example"),
        (",", "holds no name", None),
        (["a.example", 1], "is not text", None),
        (",".join(f"{i}.example" for i in range(65)), "more than 64", ",".join(f"{i}.example" for i in range(64))),
    ],
)
def test_bad_names_are_explained_and_the_good_ones_count(raw: object, reason: str, usable: str | None) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        options.check(NAMES, raw)
    assert reason in caught.value.reason
    assert caught.value.usable == usable


@given(st.text("aA0-_.*:[]/,\"';{}$ \n\u00fc", max_size=60))
def test_whatever_is_listed_only_names_come_of_it(text: str) -> None:
    """They become words of nginx's configuration."""
    try:
        value = options.check(NAMES, text)
    except InvalidOptionError as invalid:
        value = invalid.usable
    for name in str(value or "").split(","):
        assert re.fullmatch(r"([*]\.(?=.*\.))?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|", name, re.ASCII), name


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("api_key: short", {"api_key"}),
        ("api_key: [a]", {"api_key"}),
        ("api_kye: long-enough-for-a-key", {"api_key"}),
        ("chat_password: short", {"chat_password"}),
        ("chat_passwd: long-enough-for-one", {"chat_password"}),
        ("chat_email: me@example.com", {"chat_password"}),
        ("allowed_cidrs: home", {"allowed_cidrs"}),
        ("allowed_cidrs: 10.0.0.5/8", {"allowed_cidrs"}),
        ("allowed_ips: 10.0.0.0/8", {"allowed_cidrs"}),
        ("allowed_cidrs: [", {"allowed_cidrs"}),
        ("model: [\napi_key: long-enough-for-a-key\n", {"api_key"}),
        ("- api_key: long-enough-for-a-key", {"api_key"}),
        ("allowed_cidrs: 10.0.0.0/8, home", set()),
        ("api_key: ''", set()),
        ("model: typo", set()),
        ("model: [", set()),
    ],
)
def test_a_mistake_in_a_guard_does_not_open_the_door(places: Places, text: str, closed: set[str]) -> None:
    appliance.options(places, text)
    choice, problems = options.read(places, MANIFEST)
    assert choice.closed == closed
    for key in closed:
        assert getattr(choice, key) is None
        (told,) = [problem for problem in problems if problem.option == key and "was meant to be set" in problem.reason]
        assert f"sudo aisandbox configure --set {key}=" in told.fix
        assert f"sudo aisandbox configure --unset {key}" in told.fix


def test_a_valid_guard_of_a_lesser_source_is_better_than_a_generated_one(places: Places) -> None:
    appliance.options(places, "api_key: short\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {api_key: long-enough-for-a-key}\n")
    choice, problems = options.read(places, MANIFEST)
    assert choice.api_key
    assert not choice.closed
    assert len(problems) == 1


def test_other_choices_made_since_do_not_open_the_door(places: Places) -> None:
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: Org/One}\n")
    appliance.cloud_config(places, MULTIPART.replace("model: [unclosed", "api_key: [unclosed"), "user-data.txt.i")
    assert options.read(places, MANIFEST)[0].closed == {"api_key"}
    appliance.options(places, "model: Org/Two\n")
    assert options.read(places, MANIFEST)[0].closed == {"api_key"}
    appliance.options(places, "api_key:\n")
    assert options.read(places, MANIFEST) == (Choice(model="Org/One"), ())


def test_an_address_for_certificates_needs_a_domain(places: Places) -> None:
    appliance.options(places, "tls_email: me@example.com\n")
    _, (problem,) = options.read(places, MANIFEST)
    assert problem.option == "tls_email"
    assert problem.reason == "says nothing without domain"
    appliance.options(places, "tls_email: me@example.com\ndomain: ai.example.com\n")
    assert options.read(places, MANIFEST)[1] == ()


def test_a_password_needs_no_address(places: Places) -> None:
    appliance.options(places, "chat_password: long-enough-for-one\n")
    choice, problems = options.read(places, MANIFEST)
    assert choice.chat_password
    assert not problems


def test_the_decision_knows_who_made_it(places: Places) -> None:
    appliance.options(places, "model: Org/Name\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model, served_name: x, revision: '!'}\n")
    decision = options.decide(options.sources(places, MANIFEST), MANIFEST)
    assert decision.origins == {"model": str(places.options), "served_name": "user-data"}


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("model", "hf_abcdefgh12345678"),
        ("vllm_args", "--api-key TOPSECRET --hf-token=TOPSECRET"),
        ("vllm_args", "'--api-key TOPSECRET"),
        ("hub_endpoint", "https://me:TOPSECRET@hub.example/x"),
        ("api_key", "TOPSECRET"),
    ],
)
def test_a_secret_in_the_wrong_place_does_not_show(places: Places, key: str, raw: str) -> None:
    appliance.options(places, json.dumps({key: raw}))
    _, problems = options.read(places, MANIFEST)
    assert problems
    text = " ".join(repr(problem) for problem in problems)
    assert "TOPSECRET" not in text
    assert TOKEN not in text


def test_a_bomb_of_aliases_does_not_go_off(places: Places) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    appliance.options(places, f"a0: &a0 [x]\n{levels}\nmodel: *a11\nserved_name: 0x{'f' * 6000}\n? [1, *a11]\n: 1\n")
    choice, problems = options.read(places, MANIFEST)
    assert choice == Choice()
    assert {problem.value for problem in problems if problem.option == "model"} <= {"a list", None}


def test_a_hostile_value_cannot_move_the_cursor(places: Places) -> None:
    appliance.options(places, json.dumps({"model": "a\x1b[2Jb", "x\x1b[2J\n": 1}))
    _, problems = options.read(places, MANIFEST)
    assert len(problems) == 2
    assert all(text.isprintable() for text in map(str, problems))


@pytest.mark.parametrize("damage", ["", "\0" * 300, "model: [\n", "\x7fELF\x01", "just words", "- a\n", "%!"])
def test_a_damaged_file_is_explained_and_the_last_good_choice_used(places: Places, damage: str) -> None:
    appliance.options(places, "model: Org/Name\nhf_token: hf_abcdefgh12345678\n")
    options.keep(places)
    assert stat.S_IMODE(places.last_good_options.stat().st_mode) == 0o600
    appliance.options(places, damage)
    decision = options.decide(options.sources(places, MANIFEST), MANIFEST)
    assert decision.choice.model == "Org/Name"
    assert decision.choice.hf_token
    (problem,) = decision.problems
    assert problem.source == str(places.options)
    assert "the last good choice is used" in problem.reason
    assert problem.fix
    assert decision.origins["model"] == str(places.last_good_options)


def test_a_damaged_file_whose_copy_is_damaged_too_is_one_problem(places: Places) -> None:
    appliance.options(places, "model: [\n")
    places.last_good_options.write_text("model: [\n")
    choice, (problem,) = options.read(places, MANIFEST)
    assert choice == Choice()
    assert "line 2: not YAML" in problem.reason


def test_a_file_of_comments_is_no_choice_and_no_damage(places: Places) -> None:
    appliance.options(places, "model: Org/Name\n")
    options.keep(places)
    appliance.options(places, "# model: Org/Name\n")
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_a_deleted_file_is_forgotten(places: Places) -> None:
    appliance.options(places, "model: Org/Name\n")
    options.keep(places)
    places.options.unlink()
    options.keep(places)
    assert not places.last_good_options.exists()
    assert options.read(places, MANIFEST) == (Choice(), ())


def test_a_byte_that_is_no_text_does_no_harm(places: Places) -> None:
    places.etc.mkdir(parents=True)
    places.options.write_bytes(b"# caf\xe9\nmodel: Org/Name\n")
    options.keep(places)
    assert options.read(places, MANIFEST) == (Choice(model="Org/Name"), ())
