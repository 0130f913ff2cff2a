"""Every role says what it takes: specification, defaults and what its files read agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jinja2
import jinja2.meta
import pytest
import yaml

from aisandbox import manifest
from aisandbox.builder import roles, versions
from aisandbox.manifest import REPOSITORY

ROLES = roles.names()
OF_ANSIBLE = {
    "ansible_check_mode", "ansible_facts", "ansible_playbook_python", "dict", "item", "lookup", "omit",
}  # fmt: skip
"""Names that Ansible itself brings."""
EXPRESSIONS = {"when", "changed_when", "failed_when", "until", "that"}
"""Keys whose values are expressions without braces."""


class Everything(dict[str, Any]):
    """Filters and tests for the parser, which wants them to exist: Ansible has more than Jinja."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        return lambda *_: None

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


PARSER = jinja2.Environment(autoescape=True)
PARSER.filters = Everything()
PARSER.tests = Everything()


def texts(value: Any) -> Iterator[str]:
    """Every text of a YAML document, expressions in braces."""
    match value:
        case str():
            yield value
        case list():
            for part in value:
                yield from texts(part)
        case dict():
            for key, part in value.items():
                expressions = part if isinstance(part, list) else [part]
                yield from (f"{{{{ {text} }}}}" for text in expressions) if key in EXPRESSIONS else texts(part)


def own(value: Any) -> Iterator[str]:
    """Names that tasks make themselves: what they register, and variables of one task."""
    match value:
        case list():
            for part in value:
                yield from own(part)
        case dict():
            if isinstance(value.get("register"), str):
                yield value["register"]
            yield from value.get("vars") or {}
            for part in value.values():
                yield from own(part)


def names_read(role: str) -> set[str]:
    """Variables that the files of a role read and do not make."""
    folder = roles.ROLES / role
    read: set[str] = set()
    made = set(OF_ANSIBLE)
    for kind in ("tasks", "handlers", "defaults", "vars"):
        for file in sorted(folder.glob(f"{kind}/*.yml")):
            document = yaml.safe_load(file.read_text())
            if kind in ("tasks", "handlers"):
                made.update(own(document))
            if kind == "vars":
                made.update(document)
            read.update(*(jinja2.meta.find_undeclared_variables(PARSER.parse(text)) for text in texts(document)))
    for file in folder.glob("templates/*.j2"):
        read |= jinja2.meta.find_undeclared_variables(PARSER.parse(file.read_text()))
    return read - made


def options(role: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = roles.specification(role)["main"]["options"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_reads_is_what_it_says_that_it_takes(role: str) -> None:
    assert names_read(role) | roles.defaults(role).keys() == options(role).keys()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_stated_as_they_are(role: str) -> None:
    defaults = roles.defaults(role)
    for name, option in options(role).items():
        if name not in defaults:
            assert "default" not in option, name
            continue
        assert not option.get("required"), name
        text = roles.written(defaults[name])
        # One that is computed on the builder, by other programs or files, is not computed for the check of arguments.
        if len(text) <= roles.LONGEST_DEFAULT and "lookup(" not in text:
            assert option["default"] == defaults[name], name
        else:
            assert "default" not in option, name


@pytest.mark.parametrize("role", ROLES)
def test_every_argument_has_a_type_and_one_sentence(role: str) -> None:
    for name, option in options(role).items():
        assert option["type"] in {"bool", "dict", "int", "list", "path", "str"}, name
        assert (option["type"] == "list") == ("elements" in option), name
        assert re.fullmatch(r"[^\n]+\.", option["description"]), name


@pytest.mark.parametrize("role", ROLES)
def test_further_entry_points_take_what_the_role_takes(role: str) -> None:
    for entry, specification in roles.specification(role).items():
        assert (roles.ROLES / role / "tasks" / f"{entry}.yml").exists(), entry
        assert specification["short_description"]
        for name, option in specification["options"].items():
            assert option == options(role)[name], (entry, name)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_licence_and_the_platform_that_is_tested_and_depends_on_none(role: str) -> None:
    product = manifest.load()
    meta = yaml.safe_load((roles.ROLES / role / "meta" / "main.yml").read_text())
    # A dependency would run in the layer of whoever needs it, once more.
    assert meta["dependencies"] == []
    assert meta["galaxy_info"]["role_name"] == role
    assert meta["galaxy_info"]["license"] == product.product.license
    assert meta["galaxy_info"]["description"] == roles.specification(role)["main"]["short_description"]
    assert meta["galaxy_info"]["platforms"] == [{"name": "Debian", "versions": [product.os.release]}]


@pytest.mark.parametrize("role", ROLES)
def test_templates_of_one_role_are_its_own(role: str) -> None:
    """What the repository's own folder has for a role is what more than one rendering needs."""
    shared = {"nginx", "nftables", "supervisord.conf.j2", "systemd"}
    tasks = "".join(file.read_text() for file in (roles.ROLES / role / "tasks").glob("*.yml"))
    named = set(re.findall(r"repo_root \}\}/templates/([\w.-]+)", tasks))
    assert named <= shared


def test_no_role_has_a_table_for_a_system_that_no_test_boots() -> None:
    files = [file for folder in ("roles", "ansible") for file in (REPOSITORY / folder).rglob("*") if file.is_file()]
    texts_of = {file: file.read_text() for file in files if "__pycache__" not in file.parts}
    assert [file for file, text in texts_of.items() if re.search(r"(?i)noble|ubuntu", text)] == []


def test_no_handler_is_replaced_by_a_condition() -> None:
    files = [*roles.ROLES.glob("*/tasks/*.yml"), *(REPOSITORY / "ansible").glob("*.yml")]
    assert [file for file in files if "no-handler" in file.read_text()] == []


def test_pinned_versions_are_exact() -> None:
    pinned = versions.load()
    plugins = pinned["packer_plugins"].values()
    exact = [pinned["nvidia_driver"], *pinned["packer"].values(), *(plugin["version"] for plugin in plugins)]
    assert [version for version in exact if not re.fullmatch(r"\d+\.\d+\.\d+", str(version))] == []


def test_packers_plugins_are_those_of_the_versions_file() -> None:
    text = versions.PLUGINS.read_text()
    assert text == versions.plugins(), "renew it: make docs"
    listed = re.findall(r'^\s+version\s*=\s*"([^"]*)"', text, re.MULTILINE)
    assert listed and all(re.fullmatch(r"= \d+\.\d+\.\d+", version) for version in listed)


def test_both_templates_of_packer_name_the_oldest_that_is_tested() -> None:
    local = (REPOSITORY / "packer" / "local.pkr.hcl").read_text()
    assert f'required_version = ">= {versions.oldest_packer()}"' in local
    shared = (REPOSITORY / "packer" / "build.pkr.hcl.j2").read_text()
    assert 'required_version = ">= [[ packer ]]"' in shared


def test_nothing_that_the_bake_installs_by_itself_floats() -> None:
    """Python and Node.js come by locks with hashes; a direct requirement of a lock may float, what it locks may not."""
    locks = [file for file in (REPOSITORY / "locks").glob("*.txt") if not file.name.endswith(".overrides.txt")]
    assert locks
    for lock in locks:
        required = re.findall(r"^([A-Za-z0-9][^ \\#]*)", lock.read_text(), re.MULTILINE)
        assert [line for line in required if "==" not in line] == [], lock.name


def test_no_package_of_another_registry_floats() -> None:
    for package in sorted(REPOSITORY.glob("locks/*/package.json")):
        content = yaml.safe_load(package.read_text())
        wishes = content["dependencies"].values()
        assert [wish for wish in wishes if not re.fullmatch(r"\d[\w.+-]*", wish)] == [], package
