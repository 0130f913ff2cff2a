"""The guide: the tiny language model that is baked into the image, and how it is trained."""
