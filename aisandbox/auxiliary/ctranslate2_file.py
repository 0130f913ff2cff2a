"""Reads weights in the file format of CTranslate2, in which packages carry Whisper.

Format (binary version 6): name and revision of the model's kind, variables with shape and values, then further names
of variables. Numbers are little-endian; strings end with a zero byte and are preceded by their length.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

VERSION = 6
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
Array = np.ndarray[Any, Any]


def read(path: Path) -> dict[str, Array]:
    """The variables by name.

    Raises:
        ValueError: the file is not of that format, or has numbers of a type that is not read here.
    """
    with path.open("rb") as file:
        version, _, _ = _number(file, "I"), _string(file), _number(file, "I")
        if version != VERSION:
            raise ValueError(f"{path}: version {version} of CTranslate2's format, expected {VERSION}")
        return dict(_variable(file) for _ in range(_number(file, "I")))


def _variable(file: BinaryIO) -> tuple[str, Array]:
    name = _string(file)
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    kind, size = _number(file, "B"), _number(file, "I")
    if kind not in _TYPES:
        raise ValueError(f"{file.name}: {name} has numbers of an unknown type ({kind})")
    return name, np.frombuffer(file.read(size), dtype=_TYPES[kind]).reshape(shape)


def _number(file: BinaryIO, form: str) -> int:
    (value,) = struct.unpack(f"<{form}", file.read(struct.calcsize(form)))
    return int(value)


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()
