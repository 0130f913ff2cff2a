"""Units of memory, and what the model server takes of it on a processor. Standard library only."""

from __future__ import annotations

MIB = 1 << 20
GIB = 1 << 30


def cpu_kv_cache_bytes(weights: int) -> int:
    """Twice the weights, within 128 MiB and 4 GiB: vLLM zeroes all of it at start (2 s per GiB)."""
    return max(128 * MIB, min(2 * weights, 4096 * MIB))
