"""Compiles Triton's module for the driver into $TRITON_CACHE_DIR: else the first start of every instance would.

A builder has no driver to link against. A stand-in defines what the module's source calls; the module is loaded on the
instance, where the real library has it all.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from triton.backends.nvidia import driver  # type: ignore[import-not-found]


def main() -> None:
    source = Path(driver.__file__).with_name("driver.c").read_text()
    functions = sorted(set(re.findall(r"\bcu[A-Z]\w+", source)))
    stand_in = "".join(f"void {name}(void) {{}}\n" for name in functions)
    with tempfile.TemporaryDirectory() as folder:
        library = ["-Wl,-soname,libcuda.so.1", "-o", f"{folder}/libcuda.so.1"]
        subprocess.run(["gcc", "-shared", "-w", *library, "-x", "c", "-"], input=stand_in, text=True, check=True)
        os.environ["TRITON_LIBCUDA_PATH"] = folder
        # It is loaded as soon as it is compiled.
        with contextlib.suppress(ImportError):
            driver.CudaUtils()
    if not any(Path(os.environ["TRITON_CACHE_DIR"]).rglob("cuda_utils*.so")):
        sys.exit("Triton compiled no cuda_utils")


if __name__ == "__main__":
    main()
