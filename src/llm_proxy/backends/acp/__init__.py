"""A vendor's CLI as an agent on this machine, spoken to by the Agent Client Protocol (BE-18).

Owns building such a back end from its settings. Light: what runs processes is loaded with the first one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_proxy.backends.acp.backend import AcpBackend
    from llm_proxy.backends.transport import Transport
    from llm_proxy.config.backends import BackendSettings


def _unjudged(command: str) -> bool:
    """Nobody said what is dangerous: every command is."""
    return True


def build(
    settings: BackendSettings,
    transport: Transport | None = None,
    clock: Callable[[], float] = time.monotonic,
    dangerous: Callable[[str], bool] = _unjudged,
    private: Iterable[Path] = (),
) -> AcpBackend:
    """The instance of `settings`. `dangerous(command)`: would RSP-12 stop it; asked in a thread. Without it `auto_accept: safe` lets the
    agent run no command at all. `private`: the proxy's own files and directories, which no agent may see.
    """
    from llm_proxy.backends.acp.backend import AcpBackend
    from llm_proxy.backends.acp.permissions import AutoAccept
    from llm_proxy.backends.acp.sandbox import Mode

    walls: dict[object, Mode] = {"off": "off", False: "off", "required": "required"}
    modes: dict[object, AutoAccept] = {True: "true", False: "false"}
    return AcpBackend(
        settings,
        executable=settings.gemini_cli_executable,
        model=settings.model,
        project_dir=settings.project_dir,
        auto_accept=modes.get(settings.auto_accept, "safe"),
        sandbox=walls.get(settings.sandbox, "auto"),
        private=private,
        process_timeout=settings.process_timeout,
        idle_timeout=settings.idle_timeout,
        dangerous=dangerous,
        clock=clock,
    )
