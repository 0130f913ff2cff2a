"""Whether a file is what its name says: it parses, its references lead somewhere, and the tools for it are content."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

VENDOR_PART = "#!vultr-vendor-part\n"
CFN_LINT = Path(sys.executable).with_name("cfn-lint")
Faults = Iterator[str]


def missing_tools() -> tuple[str, ...]:
    """What is not checked for want of a program, in words."""
    tools = {
        "shell scripts (shellcheck)": shutil.which("shellcheck"),
        "CloudFormation (cfn-lint)": CFN_LINT.exists(),
        "the grammar of Terraform files (python-hcl2)": find_spec("hcl2"),
        "the layout of Terraform files (terraform)": shutil.which("terraform"),
    }
    return tuple(what for what, there in tools.items() if not there)


def parsed(name: str, text: str) -> Any:
    """The content of the file as plain data; its text where it has no other form.

    Raises:
        ValueError: it does not parse.
    """
    if name.endswith(".json"):
        return json.loads(text, object_pairs_hook=_unique)
    if name.endswith(".yaml"):
        try:
            return yaml.load(text, Loader=_UniqueLoader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {error}") from error
    if name == "stackscript.sh":
        return udf_fields(text)
    return text


def udf_fields(script: str) -> list[dict[str, str]]:
    """The fields of a StackScript's form. A value that holds quotes, which Akamai would cut, keeps them here."""
    tags = re.findall(r"^# <UDF (.*)>$", script, re.MULTILINE)
    return [dict(re.findall(r'(\w+)="(.*?)"(?= \w+="| ?/?$)', tag)) for tag in tags]


def faults(path: Path, name: str, text: str) -> Faults:
    """What is wrong with one file."""
    yield from _layout(name, text)
    if name.endswith(".sh"):
        yield from _shell(text)
    if name == "stackscript.sh":
        yield from _udf(udf_fields(text))
    if name == "user-data.yaml":
        yield from _cloud_config(text)
    if name == "imageless.txt":
        config, separator, script = text.partition(VENDOR_PART)
        if separator:
            yield from _cloud_config(config)
            yield from _shell(script)
        else:
            yield "the separator #!vultr-vendor-part is missing"
    if name == "cloudformation.yaml":
        yield from _cloudformation(path)


def together(folder: Path) -> Iterator[tuple[str, str]]:
    """What is wrong between the files of a target, each with the file."""
    for module in sorted({path.parent for path in folder.rglob("*.tf")}):
        name = module.relative_to(folder).as_posix()
        yield from ((name, fault) for fault in _terraform(module))
        yield from ((f"{name}/metadata.yaml", fault) for fault in _blueprint(module))
    template, form = folder / "mainTemplate.json", folder / "createUiDefinition.json"
    if template.exists() and form.exists():
        yield from ((template.name, fault) for fault in _arm(template))
        yield from ((form.name, fault) for fault in _arm_form(template, form))


def _layout(name: str, text: str) -> Faults:
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield "does not end with one line's end"
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield f"line {number} ends in blanks"
        bad = next((letter for letter in line if not letter.isprintable()), None)
        if bad and not (bad == "\t" and name.endswith(".sh")):
            yield f"line {number} has the control character {bad!r}"


def _cloud_config(text: str) -> Faults:
    if not text.startswith("#cloud-config\n"):
        yield "the first line is not #cloud-config"
    elif not isinstance(yaml.safe_load(text), dict):
        yield "cloud-config is no mapping"


def _udf(fields: list[dict[str, str]]) -> Faults:
    seen: set[str] = set()
    for field in fields:
        name = field.get("name", "")
        if name in seen:
            yield f"two fields are named {name}"
        seen.add(name)
        if "default" not in field:
            yield f"field {name} has no default, so it would be required"
        if "oneOf" in field and field.get("default") not in field["oneOf"].split(","):
            yield f"the default of field {name} is none of {field['oneOf']}"


def _shell(script: str) -> Faults:
    shell = "bash" if script.startswith("#!/bin/bash") else "sh"
    yield from _run([shell, "-n"], script)
    if shutil.which("shellcheck"):
        yield from _run(["shellcheck", f"--shell={shell}", "--format=gcc", "-"], script)


def _cloudformation(path: Path) -> Faults:
    content = parsed(path.name, path.read_text(encoding="utf-8"))
    known = {*content["Parameters"], *content["Resources"]}
    used = set(_references(content))
    yield from (f"{name} is referred to, and not there" for name in sorted(used - known))
    yield from (f"parameter {name} is not used" for name in sorted(content["Parameters"].keys() - used))
    if CFN_LINT.exists():
        yield from _run([str(CFN_LINT), "--format", "parseable", "--", str(path)])


def _references(content: Any) -> Iterator[str]:
    """Names that a CloudFormation template refers to, without pseudo parameters."""
    if isinstance(content, list):
        for entry in content:
            yield from _references(entry)
    elif isinstance(content, dict):
        for key, value in content.items():
            found: Iterable[str] = ()
            if key == "Ref":
                found = (value,)
            elif key == "Fn::GetAtt":
                found = (value[0],)
            elif key == "Fn::Sub":
                found = (name.partition(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", value))
            yield from (name for name in found if not name.startswith("AWS::"))
            yield from _references(value)


def _terraform(module: Path) -> Faults:
    """Whether all that a module refers to is declared, all that it declares is used, and every provider is required."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(module.glob("*.tf"))}
    if find_spec("hcl2"):
        import hcl2

        for name, text in texts.items():
            try:
                hcl2.loads(text)
            except Exception as error:  # of several libraries
                yield f"{name}: not Terraform's language: {str(error).splitlines()[0]}"
                return
    code = re.sub(r"(^|\s)#[^\n]*", "", "\n".join(texts.values()))
    variables = set(re.findall(r'^variable "(\w+)"', code, re.MULTILINE))
    resources = {f"{kind}.{name}" for kind, name in re.findall(r'^resource "(\w+)" "(\w+)"', code, re.MULTILINE)}
    blocks = re.findall(r"^locals \{\n(.*?)^\}", code, re.MULTILINE | re.DOTALL)
    local = {name for block in blocks for name in re.findall(r"^  (\w+)\s+=", block, re.MULTILINE)}
    bodies = re.sub(r'^variable "\w+" \{\n.*?^\}', "", code, flags=re.MULTILINE | re.DOTALL)
    kinds = "|".join(sorted({resource.partition(".")[0] for resource in resources})) or "-"
    for what, declared in (("var", variables), ("local", local)):
        used = set(re.findall(rf"\b{what}\.(\w+)", code))
        yield from (f"{what}.{name} is not declared" for name in sorted(used - declared))
        unused = declared - set(re.findall(rf"\b{what}\.(\w+)", bodies))
        yield from (f"{what}.{name} is not used" for name in sorted(unused - {"project_id"}))
    used = set(re.findall(rf"\b((?:{kinds})\.\w+)", code))
    yield from (f"{name} is not declared" for name in sorted(used - resources))
    providers = {resource.partition("_")[0] for resource in resources}
    required = set(re.findall(r"^    (\w+) = \{\n\s+source", code, re.MULTILINE))
    yield from (f"provider {name} is not required" for name in sorted(providers - required))
    yield from [] if "required_version" in code else ["no version of Terraform is required"]
    if shutil.which("terraform"):
        for name, text in texts.items():
            yield from (
                f"{name}: not laid out as by terraform fmt" for _ in _run(["terraform", "fmt", "-check", "-"], text)
            )


def _blueprint(module: Path) -> Faults:
    """Whether Marketplace's files name the module's variables, all of them and no others."""
    if not (module / "metadata.yaml").exists():
        return
    code = "\n".join(path.read_text(encoding="utf-8") for path in module.glob("*.tf"))
    declared = set(re.findall(r'^variable "(\w+)"', code, re.MULTILINE))
    metadata = parsed("metadata.yaml", (module / "metadata.yaml").read_text(encoding="utf-8"))
    display = parsed("metadata.yaml", (module / "metadata.display.yaml").read_text(encoding="utf-8"))
    for name, found in (
        ("metadata.yaml", {entry["name"] for entry in metadata["spec"]["interfaces"]["variables"]}),
        ("metadata.display.yaml", set(display["spec"]["ui"]["input"]["variables"])),
    ):
        yield from (
            f"{name}: {variable} is missing, or no variable of the module" for variable in sorted(found ^ declared)
        )
    outputs = set(re.findall(r'^output "(\w+)"', code, re.MULTILINE))
    for output in sorted(display["spec"]["ui"]["runtime"]["outputs"].keys() - outputs):
        yield f"metadata.display.yaml: {output} is no output of the module"
    for required in ("project_id", "goog_cm_deployment_name", "source_image"):
        yield from [] if required in declared else [f"Marketplace requires the variable {required}"]


def _arm(template: Path) -> Faults:
    """Whether an ARM template declares what it refers to, and uses what it declares."""
    text = template.read_text(encoding="utf-8")
    content = parsed(template.name, text)
    for what in ("parameters", "variables"):
        used = set(re.findall(rf"\b{what}\('(\w+)'\)", text))
        declared = set(content[what])
        yield from (f"{what}('{name}') is not declared" for name in sorted(used - declared))
        yield from (f"{what}('{name}') is not used" for name in sorted(declared - used))
    for entry in content["resources"]:
        missing = {"type", "apiVersion", "name"} - set(entry)
        yield from (f"a resource has no {key}" for key in sorted(missing))


def _arm_form(template: Path, form: Path) -> Faults:
    """Whether the form gives the template's parameters, from elements that it has."""
    parameters = parsed(template.name, template.read_text(encoding="utf-8"))["parameters"]
    content = parsed(form.name, form.read_text(encoding="utf-8"))["parameters"]
    given = content["outputs"]
    yield from (f"{name} is no parameter of the template" for name in sorted(given.keys() - parameters.keys()))
    needed = {name for name, rules in parameters.items() if "defaultValue" not in rules}
    yield from (f"parameter {name} is not given" for name in sorted(needed - given.keys()))
    elements = {step["name"]: {element["name"] for element in step["elements"]} for step in content["steps"]}
    elements["basics"] = {element["name"] for element in content["basics"]}
    for name, value in given.items():
        for step, element in re.findall(r"steps\('(\w+)'\)\.(\w+)", value) + [
            ("basics", element) for element in re.findall(r"basics\('(\w+)'\)", value)
        ]:
            if element not in elements.get(step, ()):
                yield f"{name} is taken from {step}.{element}, which is not there"


def _run(command: list[str], text: str | None = None) -> Faults:
    """What a tool says when it is not content."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout.strip() or done.stderr.strip()).splitlines()
        yield from (f"{Path(command[0]).name}: {line}" for line in said[:10] or [f"exit status {done.returncode}"])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


class _UniqueLoader(yaml.SafeLoader):
    """Refuses keys that are there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return super().construct_mapping(node, deep)
