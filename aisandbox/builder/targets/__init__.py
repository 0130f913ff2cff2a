"""Images baked by Packer on a platform: one build and one set of roles for all, `packer/sources/` for what differs."""

from aisandbox.builder.targets.baking import bake
from aisandbox.builder.targets.catalogue import clouds, find

__all__ = ["bake", "clouds", "find"]
