"""The options of the chat language (section 5 of the configuration)."""

from __future__ import annotations

from typing import Literal

from llm_proxy.config.options import ChatKey, OptionGroup, option


def check_prefix(value: str) -> str | None:
    """The rule of a command prefix, if `value` breaks it."""
    good = 2 <= len(value) <= 10 and value.isprintable() and not any(map(str.isspace, value))
    if not good or (len(value) == 2 and value[0] == value[1] and value[0].isalnum()):
        return RULE
    return None


RULE = "2 to 10 printable characters without a blank, and not the same letter or digit twice"


class CommandOptions(OptionGroup, path="commands", title="Commands"):
    command_prefix: str = option(
        "!/",
        at="command_prefix",
        env="COMMAND_PREFIX",
        flag="--command-prefix",
        chat=ChatKey("command-prefix", "process"),
        check=check_prefix,
        value_name="PREFIX",
        help="what a command in the chat begins with",
    )
    strict_command_detection: bool = option(
        False,
        at="strict_command_detection",
        env="STRICT_COMMAND_DETECTION",
        flag="--strict-command-detection",
        off_flag="--no-strict-command-detection",
        help="commands only on the last line of a message, with nothing else on it",
    )
    disable_interactive_commands: bool = option(
        False,
        at="disable_interactive_commands",
        aliases=("session.disable_interactive_commands",),
        env="DISABLE_INTERACTIVE_COMMANDS",
        flag="--disable-interactive-commands",
        help="read no commands in the chat",
    )
    allow_global: Literal["auto", "always", "never"] = option(
        "auto",
        env="ALLOW_GLOBAL_COMMANDS",
        flag="--global-commands",
        value_name="auto|always|never",
        help="who may change options of the whole proxy and failover routes in the chat: with auto, everyone while "
        "authentication is off or only one client key exists, else the admin keys",
    )
    max_per_message: int = option(
        20, env="COMMANDS_MAX_PER_MESSAGE", minimum=1, help="most commands in one message; with more none is executed"
    )
    allow_url_override: bool = option(
        True,
        env="ALLOW_URL_OVERRIDE",
        switch="url-override",
        help="allow !/openai-url, which sends a session's OpenAI calls to another server",
    )
    reply_style: Literal["auto", "plain", "patch"] = option(
        "auto",
        env="COMMAND_REPLY_STYLE",
        value_name="auto|plain|patch",
        help="form of the proxy's own replies: as the agent expects them, always plain text, or a patch for aider",
    )
