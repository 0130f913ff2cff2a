"""Builder side: bake, boot and check the image."""
