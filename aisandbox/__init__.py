"""AI Sandbox: one image that turns a GPU instance into a private AI."""
