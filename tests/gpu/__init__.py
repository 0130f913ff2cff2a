"""The kit that proves on a machine with an NVIDIA GPU what cannot be proved without one: `make test-gpu`.

Set-up and the look at the driver's program need the standard library alone; everything else runs in vLLM's environment.
"""
