"""The one list: which rooms there are and in which order they see a request. Answers pass them in reverse.

Each line has its reason.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy.commands.options import CommandOptions
from llm_proxy.config import Settings
from llm_proxy.config.groups import ResponsesOptions
from llm_proxy.features import Feature
from llm_proxy.features.audit import Audit, EntrySink
from llm_proxy.features.calls.dangerous_commands import DangerousCommandOptions, DangerousCommands
from llm_proxy.features.calls.gate import ToolCallGate
from llm_proxy.features.calls.reactor import Reactor
from llm_proxy.features.calls.reactor import rules_of as reactor_rules
from llm_proxy.features.commands import ChatCommands
from llm_proxy.features.context_window import ContextWindow
from llm_proxy.features.edit_precision import EditPrecision, EditPrecisionOptions, patterns_of
from llm_proxy.features.force_project import ForceProject
from llm_proxy.features.history import History, Log
from llm_proxy.features.loops.content_loop import ContentLoop
from llm_proxy.features.loops.tool_loops import ToolLoops
from llm_proxy.features.model_defaults import ModelDefaults
from llm_proxy.features.planning_phase import PlanningOptions, PlanningPhase
from llm_proxy.features.pricing import pricing_of
from llm_proxy.features.pytest_compression import PytestCompression, PytestCompressionOptions
from llm_proxy.features.rate_limits import Counts, RateLimits, limits_anything
from llm_proxy.features.reasoning_aliases import aliases_of
from llm_proxy.features.redaction import PromptRedaction, RedactionOptions
from llm_proxy.features.repair.empty_answers import EmptyAnswerOptions, EmptyAnswers
from llm_proxy.features.repair.empty_answers import prompt_of as empty_prompt
from llm_proxy.features.repair.json_options import JsonRepairOptions
from llm_proxy.features.repair.json_repair import JsonRepair
from llm_proxy.features.repair.structured_output import StructuredOutput
from llm_proxy.features.repair.think_tags import ThinkTagOptions, ThinkTags
from llm_proxy.features.repair.tool_call_repair import ToolCallRepair, ToolCallRepairOptions
from llm_proxy.features.rewriting import Rewriting
from llm_proxy.features.rewriting import rules_of as rewriting_rules
from llm_proxy.features.rewriting.rules import Rules
from llm_proxy.features.session_sampling import SessionSampling
from llm_proxy.features.thinking_budget import ThinkingBudget, ThinkingBudgetOptions
from llm_proxy.features.usage import UsageRecording
from llm_proxy.sessions.options import SessionOptions
from llm_proxy.store.protocols import UsageSink
from llm_proxy.wire.redaction import Redactor


class Needs(msgspec.Struct, frozen=True):
    """What rooms are built from. `usage` None switches usage recording off; `clean` takes secrets out of a text; `counts` is what
    rate limits have counted so far, whatever the configuration was. `audit`: who gets the entries of the audit log, () while it is off.
    `redactor` knows the secrets.
    """

    settings: Settings
    usage: UsageSink | None
    log: Log | None
    clean: Callable[[str], str]
    counts: Counts
    audit: tuple[EntrySink, ...] = ()
    redactor: Redactor = msgspec.field(default_factory=Redactor)


def _guards(settings: Settings) -> list[Feature]:
    """The rooms that look after answers. An answer passes them from the last to the first."""
    judges = (
        DangerousCommands(settings.get(DangerousCommandOptions)),  # what may destroy is refused before all else
        Reactor(reactor_rules(settings)),
        ToolLoops(settings),  # the last: a call that another one withholds was not made and does not count
    )
    guards: list[Feature] = [
        ContentLoop(settings),  # sees what the client would see, but for rewriting
        ToolCallGate(judges),  # after repair, so that repaired calls are judged too
        # After all repair: an answer that repair filled is not empty. Before the judges: what they withhold is no empty answer.
        EmptyAnswers(settings.get(EmptyAnswerOptions), empty_prompt(settings)),
        # Judges what repair has made of an answer.
        StructuredOutput(settings.get(JsonRepairOptions), settings.get(ResponsesOptions).structured_retries),
        JsonRepair(settings.get(JsonRepairOptions)),
        ToolCallRepair(settings.get(ToolCallRepairOptions)),  # before JSON is repaired: a call is no answer
    ]
    if (tags := settings.get(ThinkTagOptions)).fix_think_tags_enabled:
        guards.append(
            ThinkTags(tags.fix_think_tags_buffer_cap_bytes)
        )  # the first: what is reasoning is not examined as an answer
    return guards


def rooms(needs: Needs) -> tuple[Feature, ...]:
    """The rooms in order."""
    settings = needs.settings
    commands, sessions = settings.get(CommandOptions), settings.get(SessionOptions)
    order: list[Feature] = [
        # First, so that texts of exchanges which another room ends are collected too.
        History(most=sessions.max_history_items, clean=needs.clean, log=needs.log)
    ]
    prefix = "" if commands.disable_interactive_commands else commands.command_prefix
    if needs.audit:
        order.append(Audit(needs.audit, needs.clean))  # before the commands, whose local replies no later room sees
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
    if (rules := rewriting_rules(settings)) != Rules():
        order.append(Rewriting(rules))  # after the commands, which nobody rewrites; the last to change an answer
    order += _guards(settings)
    # Fills what neither the client nor a command of this message has set.
    order.append(SessionSampling(aliases_of(settings)))
    order.append(ModelDefaults(settings))  # fills what then is still open
    if (planning := settings.get(PlanningOptions)).enabled:
        order.append(PlanningPhase(planning))  # replaces what these have filled, in tries for the strong model
    # After all that chooses sampling values: it takes the lower of theirs and its own.
    order.append(EditPrecision(settings.get(EditPrecisionOptions), patterns_of(settings)))
    if (budget := settings.get(ThinkingBudgetOptions).thinking_budget) is not None:
        order.append(ThinkingBudget(budget))  # after all that shapes reasoning: it counts above every other source
    order.append(PytestCompression(settings.get(PytestCompressionOptions)))
    if (redaction := settings.get(RedactionOptions)).redact_api_keys_in_prompts:
        order.append(PromptRedaction(redaction, needs.redactor))  # looks at bodies, after all that shapes them
    # It measures what the client sent, and refuses before anything is counted for a rate limit.
    order.append(ContextWindow(settings))
    if limits_anything(settings):
        order.append(RateLimits(settings, needs.counts))  # the last to admit a try: what others refuse is not counted
    if needs.usage is not None:
        order.append(
            UsageRecording(needs.usage, pricing_of(settings), needs.clean)
        )  # last: it records what all others made of the exchange
    return tuple(order)
