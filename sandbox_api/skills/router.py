"""Routes of skills."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, UploadFile

from sandbox_api.envelope import Envelope, ok
from sandbox_api.services import Injected
from sandbox_api.skills.models import Cleared, Registration, Skill, SkillContent, Skills

router = APIRouter(prefix="/v1/skills", tags=["skills"])


@router.post("/register", summary="Add skills from a zip file, a SKILL.md, or a folder")
async def register_skills(
    services: Injected,
    file: Annotated[UploadFile | None, File(description="A zip file of one or more skills, or one SKILL.md.")] = None,
    path: Annotated[str | None, Form(max_length=4096, description="A folder, when there is no file.")] = None,
    name: Annotated[str | None, Form(max_length=64, description="Name of a single skill.")] = None,
) -> Envelope[Registration]:
    return ok(await services.skills.register(file.file if file else None, path or None, name or None))


@router.get("/metadatas", summary="Skills and their front matter")
async def list_skills(
    services: Injected, names: Annotated[str | None, Query(max_length=8192, description="With commas.")] = None
) -> Envelope[Skills]:
    return ok(await services.skills.list(names))


@router.get("/{name}/content", summary="The text of a skill")
async def skill_content(name: str, services: Injected) -> Envelope[SkillContent]:
    return ok(await services.skills.content(name))


@router.delete("/{name}", summary="Delete a skill")
async def delete_skill(name: str, services: Injected) -> Envelope[Skill]:
    return ok(await services.skills.delete(name))


@router.delete("", summary="Delete all skills")
async def clear_skills(services: Injected) -> Envelope[Cleared]:
    return ok(await services.skills.clear())
