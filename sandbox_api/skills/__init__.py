"""Skills: folders with a SKILL.md that tell an agent how to do something."""
