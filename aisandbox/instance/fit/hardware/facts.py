"""What the image is made for."""

from __future__ import annotations

from aisandbox.instance.memory import GIB as GIB

CUDA = "13"
"""Release of CUDA that the image's vLLM is built for: the lock's, as tests/unit/test_driver_version.py says."""
LEAST_DRIVER = 580
"""First NVIDIA driver that serves that CUDA. By hand, after NVIDIA's table: neither vLLM nor PyTorch knows it."""
