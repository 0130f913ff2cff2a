"""What an option is called on every platform; the readers are in `aisandbox/instance/choose/options`."""

from __future__ import annotations

from collections.abc import Callable

from aisandbox.instance.choose.options import SECTION
from aisandbox.instance.choose.options.container import UNAVAILABLE
from aisandbox.instance.choose.options.deployment import FORM_SUFFIX
from aisandbox.instance.run.container.environment import PREFIX
from aisandbox.manifest import Option

Name = Callable[[Option], str]


def stackscript(option: Option) -> str:
    """Akamai masks a field only when its name has "password" in it."""
    masked = option.type == "secret" and "password" not in option.key
    return f"{option.key}{FORM_SUFFIX}" if masked else option.key


def plain(option: Option) -> str:
    """Vultr's variables, Terraform's variables and user-data."""
    return option.key


def gcp(option: Option) -> str:
    return f"{SECTION}-{option.key}"


def aws_tag(option: Option) -> str:
    return f"{SECTION}:{option.key}"


def kernel(option: Option) -> str:
    return f"{SECTION}.{option.key}"


def environment(option: Option) -> str:
    """Containers; some options need a machine and have none."""
    return "" if option.key in UNAVAILABLE else f"{PREFIX}{option.key.upper()}"


def pascal(option: Option) -> str:
    """CloudFormation's parameters."""
    return "".join(word.capitalize() for word in option.key.split("_"))


def camel(option: Option) -> str:
    """Azure's parameters."""
    name = pascal(option)
    return name[0].lower() + name[1:]


COLUMNS: dict[str, Name] = {
    "StackScript": stackscript,
    "Vultr variable": plain,
    "GCP attribute": gcp,
    "AWS tag": aws_tag,
    "container variable": environment,
    "kernel command line": kernel,
}
"""The ways to hand options over whose names the documents list."""
