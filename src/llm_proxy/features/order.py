"""The one list: which rooms there are and in which order they see a request. Answers pass them in reverse.

Each line has its reason.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy.commands.options import CommandOptions
from llm_proxy.config import Settings
from llm_proxy.features import Feature
from llm_proxy.features.commands import ChatCommands
from llm_proxy.features.force_project import ForceProject
from llm_proxy.features.history import History, Log
from llm_proxy.features.session_sampling import SessionSampling
from llm_proxy.features.usage import UsageRecording
from llm_proxy.sessions.options import SessionOptions
from llm_proxy.store.protocols import UsageSink


class Needs(msgspec.Struct, frozen=True):
    """What rooms are built from. `usage` None switches usage recording off; `clean` takes secrets out of a text."""

    settings: Settings
    usage: UsageSink | None
    log: Log | None
    clean: Callable[[str], str]


def rooms(needs: Needs) -> tuple[Feature, ...]:
    """The rooms in order."""
    settings = needs.settings
    commands, sessions = settings.get(CommandOptions), settings.get(SessionOptions)
    order: list[Feature] = [
        # First, so that texts of exchanges which another room ends are collected too.
        History(most=sessions.max_history_items, clean=needs.clean, log=needs.log)
    ]
    prefix = "" if commands.disable_interactive_commands else commands.command_prefix
    if prefix:
        order.append(  # before all that looks at the conversation: what remains is what the model shall see
            ChatCommands(
                prefix=prefix,
                strict=commands.strict_command_detection,
                most=commands.max_per_message,
                interactive=sessions.default_interactive_mode,
            )
        )
    if sessions.force_set_project:
        order.append(ForceProject(prefix))  # after the commands: the message itself may set the project
    order.append(SessionSampling())  # fills what neither the client nor a command of this message has set
    if needs.usage is not None:
        order.append(UsageRecording(needs.usage))  # last: it records what all others made of the exchange
    return tuple(order)
