"""Options of the Packer builders that Packer 1.6 cannot load, to check their sources by."""

from __future__ import annotations

from dataclasses import dataclass

SSH = frozenset({"ssh_username", "ssh_private_key_file", "ssh_timeout"})
"""What our sources say of the communicator."""


@dataclass(frozen=True)
class Options:
    """What a builder takes. `plugin` is where the names were read."""

    plugin: str
    required: frozenset[str]
    optional: frozenset[str]

    @property
    def known(self) -> frozenset[str]:
        return self.required | self.optional | SSH


OPTIONS = {
    "linode": Options(
        plugin="github.com/linode/packer-plugin-linode, builder/linode/config.go",
        required=frozenset({"linode_token", "image", "region", "instance_type"}),
        optional=frozenset(
            {
                "authorized_keys", "image_create_timeout", "image_description", "image_label", "instance_label",
                "instance_tags", "root_pass", "state_timeout", "swap_size",
            }
        ),
    ),
    "vultr": Options(
        plugin="github.com/vultr/packer-plugin-vultr, builder/vultr/config.go",
        # One of os_id, app_id, image_id, snapshot_id and iso_id says what to start from; ours is the first.
        required=frozenset({"api_key", "os_id", "plan_id", "region_id"}),
        optional=frozenset(
            {
                "app_id", "enable_ipv6", "enable_private_network", "hostname", "image_id", "instance_label", "iso_id",
                "iso_url", "script_id", "snapshot_description", "snapshot_id", "ssh_key_ids", "state_timeout", "tag",
                "userdata",
            }
        ),
    ),
}  # fmt: skip
