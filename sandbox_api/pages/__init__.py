"""The sandbox's own pages: dashboard, API documentation, guide for language models."""
