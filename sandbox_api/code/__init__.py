"""Code: Python in Jupyter kernels, JavaScript in Node.js."""

from sandbox_api.code.router import router

__all__ = ["router"]
