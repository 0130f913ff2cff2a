"""Code: Python in Jupyter kernels, JavaScript in Node.js."""
