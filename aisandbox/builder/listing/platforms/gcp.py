"""Google Cloud: the Terraform module of a VM product, with the files by which Marketplace shows its form."""

from __future__ import annotations

from typing import Any

from aisandbox.builder.listing import machine, names
from aisandbox.builder.listing.files import Files, as_yaml, choices, mismatch, optional, rendered
from aisandbox.builder.listing.platforms import terraform
from aisandbox.builder.listing.tables import code
from aisandbox.manifest import Manifest, Option

MACHINE = {
    "zone": "Zone",
    "machine_type": "Machine type",
    "boot_disk_type": "Type of the boot disk",
    "boot_disk_size": "Size of the boot disk in GB",
    "network": "Network",
    "source_ranges": "Networks that may reach the instance",
}
"""Titles of the variables that describe the machine."""


def files(manifest: Manifest, target: str) -> Files:
    facts = {
        "image": f"projects/VENDOR-PROJECT/global/images/{machine.image_name(manifest)}",
        "size": machine.size(manifest, target),
        "disk_gb": machine.DISK_GB,
        "least_disk_gb": machine.LEAST_DISK_GB,
        "condition": machine.terraform_condition,
        "inputs": _inputs(manifest),
    }

    def module(name: str, use: str, template: str = "") -> Files:
        return {f"module/{name}": rendered(f"gcp/{template or name}.j2", use, manifest, target, **facts)}

    return {
        **module("main.tf", "the module: instance and firewall"),
        **module("variables.tf", "the module: its variables; put the vendor's project into source_image"),
        "module/choice.tf": terraform.choice(manifest, target, user_data=False),
        **module("outputs.tf", "the module: addresses"),
        **module("versions.tf", "the module: versions"),
        "module/metadata.yaml": as_yaml(_metadata(manifest), "Producer Portal: what the module is"),
        "module/metadata.display.yaml": as_yaml(_display(manifest, target), "Producer Portal: the module's form"),
        **module("marketplace_test.tfvars", "Producer Portal: what the module is validated with"),
        **module("README.md", "the module's own documentation", "module.md"),
    }


def _inputs(manifest: Manifest) -> list[tuple[str, str, str]]:
    own = [(code(name), title, "") for name, title in MACHINE.items()]
    return [*own, *((code(names.plain(option)), option.help, code(option.default)) for option in manifest.options)]


def _head(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "blueprints.cloud.google.com/v1alpha1",
        "kind": "BlueprintMetadata",
        "metadata": {"name": name, "annotations": {"config.kubernetes.io/local-config": "true"}},
    }


def _metadata(manifest: Manifest) -> dict[str, Any]:
    product = manifest.product
    variables: list[dict[str, Any]] = [
        {
            "name": "project_id",
            "description": "Project in which the instance is made.",
            "varType": "string",
            "required": True,
        },
        {
            "name": "goog_cm_deployment_name",
            "description": "Name of the deployment and of the instance.",
            "varType": "string",
            "required": True,
        },
        {"name": "source_image", "description": "Image of the product.", "varType": "string"},
        *(
            {"name": name, "description": title, "varType": "number" if name == "boot_disk_size" else "string"}
            for name, title in MACHINE.items()
        ),
        *(
            {"name": names.plain(option), "description": option.help, "varType": "string"}
            for option in manifest.options
        ),
    ]
    return {
        **_head(f"{product.id}-vm"),
        "spec": {
            "info": {
                "title": product.name,
                "version": product.version,
                "description": {"tagline": product.tagline, "detailed": manifest.listing.description},
                "actuationTool": {"flavor": "Terraform", "version": ">= 1.3"},
                "softwareGroups": [
                    {"type": "SG_OS", "software": [{"title": _system(manifest), "version": manifest.os.version}]}
                ],
            },
            "interfaces": {"variables": variables},
            "requirements": {
                "roles": [{"level": "Project", "roles": ["roles/compute.admin", "roles/iam.serviceAccountUser"]}],
                "services": ["compute.googleapis.com"],
            },
        },
    }


def _display(manifest: Manifest, target: str) -> dict[str, Any]:
    product = manifest.product
    properties: dict[str, dict[str, Any]] = {
        "source_image": {"type": "ET_GCE_DISK_IMAGE"},
        "zone": {"type": "ET_GCE_ZONE"},
        "machine_type": {"type": "ET_GCE_MACHINE_TYPE", "zoneProperty": "zone"},
        "boot_disk_type": {"type": "ET_GCE_DISK_TYPE", "zoneProperty": "zone"},
        "boot_disk_size": {"type": "ET_GCE_DISK_SIZE", "gceDiskSize": {"diskTypeVariable": "boot_disk_type"}},
        "network": {"type": "ET_GCE_NETWORK"},
        "source_ranges": {"type": "ET_GCE_FIREWALL_RANGE"},
    }
    variables: dict[str, dict[str, Any]] = {
        "project_id": {"name": "project_id", "title": "Project", "invisible": True},
        "goog_cm_deployment_name": {"name": "goog_cm_deployment_name", "title": "Name of the deployment"},
        "source_image": {"name": "source_image", "title": "Image", "invisible": True},
    }
    variables |= {name: {"name": name, "title": title, "section": "machine"} for name, title in MACHINE.items()}
    for name, google in properties.items():
        variables[name]["xGoogleProperty"] = google
    variables |= {names.plain(option): _field(option) for option in manifest.options}
    sections = [
        {"name": "choice", "title": "What to serve, and to whom", "tooltip": "None of it is required."},
        {"name": "machine", "title": "The machine"},
    ]
    return {
        **_head(f"{product.id}-vm-display"),
        "spec": {
            "info": {"title": product.name},
            "ui": {
                "input": {"variables": variables, "sections": sections},
                "runtime": {
                    "outputs": {
                        f"{name}_url": {"openInNewTab": True, "showInNotification": True, "label": label}
                        for name, label in (("chat", "Open the chat page"), ("api", "Base URL of the API"))
                    },
                    "suggestedActions": [
                        {"heading": "Close it to others", "description": _CLOSE},
                    ],
                },
            },
        },
    }


_CLOSE = (
    "Chat page and API are open to everyone who can reach them. On the instance, close them with "
    "`sudo aisandbox configure --api-key -`, `--chat-password -` or `--allowed-cidrs 203.0.113.7`. "
    "An open chat has none of the sandbox's terminal, files and tools; either of the last two switches them on."
)


def _field(option: Option) -> dict[str, Any]:
    field: dict[str, Any] = {
        "name": names.plain(option),
        "title": option.label,
        "tooltip": option.help,
        "section": "choice",
    }
    if option.choices:
        field["enumValueLabels"] = [
            {"label": choice or "Leave it to the appliance", "value": choice} for choice in choices(option)
        ]
    else:
        field["regexValidation"] = optional(option)
        field["validation"] = mismatch(option)
    if option.example is not None:
        field["placeholder"] = str(option.example)
    return field


def _system(manifest: Manifest) -> str:
    return manifest.os.family.capitalize()
