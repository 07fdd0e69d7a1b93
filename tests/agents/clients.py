"""The three agents and how each is pointed at a base URL and run without a terminal.

Owns commands, variables and settings files of the agents; `docs/clients.md` tells people the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.agents.programs import Ran, environment, install_npm, run
from tests.support.shared import Protocol

SECONDS: Final = 90.0
KEY: Final = "sk-a-key-of-the-test"


@dataclass(frozen=True)
class Setting:
    """What an agent is told: the server (without a version part), the model, its home, the prompt."""

    url: str
    model: str
    home: Path
    prompt: str


@dataclass(frozen=True)
class Agent:
    """One agent. `prefix` is the part of the proxy's URL that its protocol lives under."""

    name: str
    protocol: Protocol
    prefix: str
    own_model: str
    command: Callable[[Setting], list[str]]
    variables: Callable[[Setting], Mapping[str, str]]
    files: Callable[[Setting], Mapping[str, str]]

    def run(self, setting: Setting, folder: Path) -> Ran:
        """Run it in `folder` with a home of its own."""
        commands = install_npm()
        for name, text in self.files(setting).items():
            path = setting.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = environment(setting.home, self.variables(setting), commands)
        command = self.command(setting)
        return run([str(commands / command[0]), *command[1:]], folder, env, SECONDS)


def _nothing(_: Setting) -> dict[str, str]:
    return {}


CLAUDE_CODE: Final = Agent(
    name="claude",
    protocol="anthropic-messages",
    prefix="/anthropic",
    own_model="claude-sonnet-4-5",
    command=lambda setting: [
        "claude",
        "-p",
        setting.prompt,
        "--allowedTools",
        "Bash,Write,Edit,Read",
    ],
    variables=lambda setting: {
        "ANTHROPIC_BASE_URL": setting.url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_MODEL": setting.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    },
    files=_nothing,
)

CODEX: Final = Agent(
    name="codex",
    protocol="openai-responses",
    prefix="",
    own_model="gpt-5.1-codex",
    command=lambda setting: [
        "codex",
        "exec",
        "--skip-git-repo-check",
        "--sandbox",
        "danger-full-access",
        setting.prompt,
    ],
    variables=lambda setting: {"CODEX_HOME": str(setting.home / ".codex"), "PROXY_KEY": KEY},
    files=lambda setting: {
        ".codex/config.toml": (
            f"model = {json.dumps(setting.model)}\n"
            'model_provider = "proxy"\n'
            'approval_policy = "never"\n'
            "[model_providers.proxy]\n"
            'name = "proxy"\n'
            f"base_url = {json.dumps(setting.url + '/v1')}\n"
            'env_key = "PROXY_KEY"\n'
            'wire_api = "responses"\n'
        )
    },
)

GEMINI_CLI: Final = Agent(
    name="gemini",
    protocol="gemini",
    prefix="",
    own_model="gemini-2.5-pro",
    command=lambda setting: [
        "gemini",
        "--skip-trust",
        "--yolo",
        "-m",
        setting.model,
        "-p",
        setting.prompt,
    ],
    variables=lambda setting: {"GOOGLE_GEMINI_BASE_URL": setting.url, "GEMINI_API_KEY": KEY},
    files=lambda setting: {
        ".gemini/settings.json": json.dumps(
            {
                "security": {"auth": {"selectedType": "gemini-api-key"}},
                "privacy": {"usageStatisticsEnabled": False},
                "telemetry": {"enabled": False},
                "general": {"enableAutoUpdate": False, "disableAutoUpdate": True},
            }
        )
    },
)

AGENTS: Final = (CLAUDE_CODE, CODEX, GEMINI_CLI)
