"""Other products' wire formats over the native services, and nothing else."""
