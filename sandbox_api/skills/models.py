"""Answers about skills."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class DependencyCommand(BaseModel):
    command: list[str]
    success: bool
    stdout: str | None = None
    stderr: str | None = None


class Skill(BaseModel):
    name: str
    path: str = Field(description="Its folder.")
    metadata: dict[str, Any] = Field({}, description="The front matter of its SKILL.md.")
    dependency_commands: list[DependencyCommand] = Field(
        [], description="Always empty: registering runs nothing. Install what a skill needs by a command."
    )


class Registration(BaseModel):
    count: int
    registered: list[Skill] = []


class Skills(BaseModel):
    skills: list[Skill] = []


class SkillContent(BaseModel):
    name: str
    path: str
    content: str = Field(description="SKILL.md without its front matter.")


class Cleared(BaseModel):
    removed: list[str]
    count: int
