"""Terraform examples, and what the Google module shares with them."""

from __future__ import annotations

from typing import Any

from aisandbox.builder.listing import machine, names
from aisandbox.builder.listing.files import File, Files, rendered
from aisandbox.manifest import Manifest


def example(manifest: Manifest, target: str, **context: Any) -> Files:
    """An example that hands the options over as user-data."""
    main = rendered(
        f"terraform/{target}.tf.j2",
        "Terraform example: machine and firewall",
        manifest,
        target,
        condition=machine.terraform_condition,
        **context,
    )
    variables = rendered("terraform/options.tf.j2", "Terraform example: the choices", manifest, target)
    return {
        "terraform/main.tf": main,
        "terraform/variables.tf": variables,
        "terraform/choice.tf": choice(manifest, target, user_data=True),
    }


def choice(manifest: Manifest, target: str, *, user_data: bool) -> File:
    """The choices that were made, and with `user_data` the user-data that carries them."""
    longest = max(len(names.plain(option)) for option in manifest.options)
    use = "Terraform: from choices to " + ("user-data" if user_data else "metadata")
    return rendered("terraform/choice.tf.j2", use, manifest, target, longest=longest, user_data=user_data)
