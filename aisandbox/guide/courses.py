"""What the guide is taught one after another, and how: recipe.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from aisandbox.guide.files import CHAT_TEMPLATE, RECIPE
from aisandbox.guide.lessons import LESSONS, General, Material, prompts
from aisandbox.teaching.conversations import Conversation
from aisandbox.teaching.fingerprint import fingerprint
from aisandbox.teaching.recipe import Recipe


class Course(BaseModel):
    """Lessons of one kind, and how they are taught; it begins with what the course before it has left."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lessons: Literal["questions", "practice"]
    recipe: Recipe


def read(path: Path = RECIPE) -> list[Course]:
    return TypeAdapter(list[Course]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))


def lessons(courses: Sequence[Course], number: int, material: Material) -> list[list[Conversation]]:
    """Those of each epoch of the course of that number; no two epochs are alike."""
    before = sum(each.recipe.epochs for each in courses[:number])
    make = LESSONS[courses[number].lessons]
    return [make(material, before + epoch) for epoch in range(courses[number].recipe.epochs)]


def made_from(manifest: Path, courses: Sequence[Course]) -> str:
    """Digest of what the adapter is made from in these courses, besides the base and what the base itself says."""
    material = Material.read(manifest, [General(prompt, "-", whole=True) for prompt in prompts()])
    taught = (
        lesson for number in range(len(courses)) for epoch in lessons(courses, number, material) for lesson in epoch
    )
    recipes = [course.model_dump_json().encode() for course in courses]
    return fingerprint(taught, *recipes, CHAT_TEMPLATE.read_bytes())
