"""GPU clouds that run containers: RunPod's template and Hub files, and Docker Compose for any host with a GPU."""

from __future__ import annotations

from typing import Any

from aisandbox.builder.listing import names, ports
from aisandbox.builder.listing.examples import example
from aisandbox.builder.listing.files import Files, as_json, choices, rendered
from aisandbox.manifest import Manifest, Option

CUDA = ["13.0"]
"""CUDA versions of a host's driver that the image runs with."""
DISK_GB, VOLUME_GB = 30, 100
"""What the container writes outside its volume, and room for models inside."""
TEST_GPU = "NVIDIA GeForce RTX 4090"
"""A GPU that the Hub tests on."""


def files(manifest: Manifest, target: str) -> Files:
    product = manifest.product
    image = f"REGISTRY/{product.id}:{product.version}"
    readme = rendered("container/template.md.j2", "RunPod: the template's and the Hub entry's readme", manifest, target)
    open_ports = [f"{door.port}/http" for door in ports.services(manifest)]
    template = {
        "name": f"{product.name} {product.version}",
        "imageName": image,
        "category": "NVIDIA",
        "isServerless": False,
        "isPublic": False,
        "containerDiskInGb": DISK_GB,
        "volumeInGb": VOLUME_GB,
        "volumeMountPath": str(manifest.paths.data),
        "ports": open_ports,
        "env": {},
        "readme": readme.text,
    }
    hub: dict[str, Any] = {
        "title": product.name,
        "description": product.tagline,
        "type": "pod",
        "category": "language",
        "config": {
            "runsOn": "GPU",
            "containerDiskInGb": DISK_GB,
            "gpuCount": 1,
            "allowedCudaVersions": CUDA,
            "ports": open_ports,
            "presets": [
                {"name": model.id, "defaults": {names.environment(manifest.options_by_key["model"]): model.id}}
                for model in manifest.models
                if not model.embedded
            ],
            "env": [
                {"key": names.environment(option), "input": _field(option)}
                for option in ports.options(manifest, target)
            ],
        },
    }
    tests = {
        "tests": [{"name": "the embedded model answers", "input": {"path": "/ready"}, "timeout": 600000}],
        "config": {
            "gpuTypeId": TEST_GPU,
            "gpuCount": 1,
            "env": [
                {"key": names.environment(manifest.options_by_key["model"]), "value": manifest.embedded_model.id},
            ],
            "allowedCudaVersions": CUDA,
        },
    }
    return {
        "template.json": as_json(template, "RunPod: body for POST https://rest.runpod.io/v1/templates"),
        "template.md": readme,
        ".runpod/hub.json": as_json(hub, "RunPod Hub: goes into .runpod of the repository"),
        ".runpod/tests.json": as_json(tests, "RunPod Hub: goes into .runpod of the repository"),
        "compose.yaml": rendered(
            "container/compose.yaml.j2",
            "Docker Compose, for any host with a GPU and NVIDIA's Container Toolkit",
            manifest,
            target,
            image=image,
            example=example,
        ),
    }


def _field(option: Option) -> dict[str, Any]:
    field: dict[str, Any] = {
        "name": option.label,
        "type": "string",
        "description": option.help,
        "default": "" if option.default is None or not option.choices else option.default,
    }
    if option.choices:
        field["options"] = [
            {"label": choice or "Leave it to the appliance", "value": choice} for choice in choices(option)
        ]
    return field
