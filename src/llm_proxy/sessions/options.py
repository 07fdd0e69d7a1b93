"""The options of sessions and of agent detection, and the keys that belong to a session alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.wire.secrets import Secret


def check_project(value: str) -> str | None:
    return None if 1 <= len(value) <= 200 and value.isprintable() else "1 to 200 printable characters"


class SessionOptions(OptionGroup, path="session", title="Sessions"):
    default_interactive_mode: bool = option(
        True,
        aliases=("interactive_mode",),
        env="DEFAULT_INTERACTIVE_MODE",
        env_off="DISABLE_INTERACTIVE_MODE",
        off_flag="--disable-interactive-mode",
        chat=ChatKey("default-interactive", "process"),
        help="interactive mode of new sessions: unknown commands are answered, confirmations are shown",
    )
    interactive: bool | None = option(
        None,
        at="",
        chat=ChatKey("interactive", "session", ("interactive-mode",)),
        default_text="session.default_interactive_mode",
        help="unknown commands are answered and confirmations are shown",
    )
    force_set_project: bool = option(
        False,
        aliases=("force_set_project",),
        env="FORCE_SET_PROJECT",
        flag="--force-set-project",
        help="refuse requests of a session that has no project",
    )
    repository: Literal["in_memory", "file", "redis"] = option(
        "in_memory",
        env="SESSION_REPOSITORY",
        flag="--session-repository",
        value_name="in_memory|file|redis",
        restart=True,
        help="where sessions are kept",
    )
    file_path: Path | None = option(
        None,
        env="SESSION_FILE_PATH",
        restart=True,
        default_text="sessions.sqlite3 in the data directory",
        help="SQLite file of the repository `file`, or a directory for it",
    )
    redis_url: Secret | None = option(
        None, env="SESSION_REDIS_URL", restart=True, help="server of the repository `redis`"
    )
    max_history_items: int = option(
        100,
        env="SESSION_MAX_HISTORY_ITEMS",
        minimum=0,
        maximum=100_000,
        help="exchanges remembered for each session",
    )
    expiry_seconds: int = option(
        86_400, env="SESSION_EXPIRY_SECONDS", minimum=1, unit="seconds", help="life of a session after its last use"
    )
    max_age: int = option(
        604_800, env="SESSION_MAX_AGE", minimum=1, unit="seconds", help="life of a session after it began"
    )
    cleanup_enabled: bool = option(True, env="SESSION_CLEANUP_ENABLED", help="look for ended sessions regularly")
    cleanup_interval: int = option(
        3600, env="SESSION_CLEANUP_INTERVAL", minimum=1, unit="seconds", help="time between two such looks"
    )
    max_sessions: int = option(
        10_000,
        env="SESSION_MAX_SESSIONS",
        minimum=1,
        help="most sessions; beyond it the one that was idle longest ends",
    )
    log_directory: Path | None = option(
        None,
        env="SESSION_LOG_DIRECTORY",
        flag="--session-log-dir",
        value_name="DIRECTORY",
        help="directory that gets one JSON Lines file for each session",
    )
    project: str | None = option(
        None,
        at="",
        chat=ChatKey("project", "session", ("project-name",)),
        check=check_project,
        help="project to which the work is attributed",
    )
    project_dir: str | None = option(
        None,
        at="",
        chat=ChatKey("project-dir", "session", ("dir", "project-directory")),
        help="existing directory in which an agent back-end works",
    )


class AgentOptions(OptionGroup, path="agents", title="Agents"):
    detection: bool = option(True, env="AGENT_DETECTION", help="recognise coding agents by what they send")
