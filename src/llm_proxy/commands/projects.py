"""Which project the work belongs to, and in which directory it is done (CMD-13, CMD-14)."""

from __future__ import annotations

from typing import Final

from llm_proxy.commands.command import Command, no_value
from llm_proxy.commands.desk import Desk
from llm_proxy.commands.grammar import Arguments
from llm_proxy.commands.settings import short_form

_GROUP: Final = "Project"


def tell_place(desk: Desk, arguments: Arguments | None) -> str:
    no_value(desk, arguments, "pwd")
    values, prefix = desk.session.values, desk.prefix
    if directory := values.get("project-dir"):
        return str(directory)
    if project := values.get("project"):
        return f"Project {project}; no project directory is set. Set one: {prefix}project-dir(path)."
    return (
        "Neither a project directory nor a project is set. "
        f"Set them: {prefix}project-dir(path) and {prefix}project(name)."
    )


COMMANDS: Final = (
    Command(
        name="project",
        group=_GROUP,
        purpose="name the project to which the work is attributed",
        forms=("project(name)", "project"),
        keys=("project",),
        examples=("project(website)", "project"),
        run=short_form("project", "project(name)", names=("name",)),
    ),
    Command(
        name="project-dir",
        group=_GROUP,
        purpose="choose the directory in which an agent back-end works",
        forms=("project-dir(path)", "project-dir"),
        keys=("project-dir",),
        examples=("project-dir(~)", "project-dir"),
        run=short_form("project-dir", "project-dir(path)", names=("path",)),
    ),
    Command(
        name="pwd",
        group=_GROUP,
        purpose="show the project directory, or else the project",
        forms=("pwd",),
        keys=("project-dir", "project"),
        examples=("pwd",),
        run=tell_place,
    ),
)
