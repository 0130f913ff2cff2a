"""The guide: the small language model that is baked into the image, and what it is taught."""
