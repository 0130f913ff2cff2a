"""Skills: folders with a SKILL.md that tell an agent how to do something."""

from sandbox_api.skills.router import router

__all__ = ["router"]
