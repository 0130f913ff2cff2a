"""What the image is made for."""

from __future__ import annotations

from aisandbox.instance.memory import GIB as GIB

CUDA = "13"
"""Release of CUDA that the image's vLLM is built for."""
LEAST_DRIVER = 580
"""First NVIDIA driver that serves that CUDA."""
LEAST_CAPABILITY = (7, 5)
"""Oldest compute capability that this CUDA still has code for (Turing, such as the T4)."""
