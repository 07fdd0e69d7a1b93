"""The one list of option groups: every room's declarations, in the order in which people read about them.

A new group is one line here; flags, variables, `--help`, the JSON Schema and the reference follow.
"""

from __future__ import annotations

from typing import Final

from llm_proxy.commands.options import CommandOptions
from llm_proxy.config.access import BruteForceOptions
from llm_proxy.config.capture import CaptureOptions
from llm_proxy.config.groups import (
    AuditOptions,
    AuthOptions,
    BackendGeneralOptions,
    FailoverOptions,
    InternalApiOptions,
    LocationOptions,
    LoggingOptions,
    PerformanceOptions,
    ResponsesOptions,
    ServerOptions,
    UsageOptions,
)
from llm_proxy.config.identity import IdentityOptions
from llm_proxy.config.options import OptionGroup
from llm_proxy.config.response_cache import ResponseCacheOptions
from llm_proxy.features.calls.dangerous_commands import DangerousCommandOptions
from llm_proxy.features.calls.reactor.options import ReactorOptions
from llm_proxy.features.context_window import ContextWindowOptions
from llm_proxy.features.edit_precision import EditPrecisionOptions
from llm_proxy.features.loops.loop_options import LoopDetectionOptions, ToolCallLoopOptions
from llm_proxy.features.planning_phase import PlanningOptions
from llm_proxy.features.pricing import PriceOptions
from llm_proxy.features.pytest_compression import PytestCompressionOptions
from llm_proxy.features.rate_limits import RateLimitOptions
from llm_proxy.features.reasoning_aliases import ReasoningAliasOptions
from llm_proxy.features.redaction import RedactionOptions
from llm_proxy.features.repair.empty_answers import EmptyAnswerOptions
from llm_proxy.features.repair.json_options import JsonRepairOptions
from llm_proxy.features.repair.think_tags import ThinkTagOptions
from llm_proxy.features.repair.tool_call_repair import ToolCallRepairOptions
from llm_proxy.features.rewriting import RewritingOptions
from llm_proxy.features.session_sampling import SamplingOptions
from llm_proxy.features.thinking_budget import ThinkingBudgetOptions
from llm_proxy.routing.options import ChoiceOptions
from llm_proxy.sessions.options import AgentOptions, SessionOptions

GROUPS: Final[tuple[type[OptionGroup], ...]] = (
    LocationOptions,
    ServerOptions,
    AuthOptions,
    BruteForceOptions,
    BackendGeneralOptions,
    FailoverOptions,
    ChoiceOptions,
    CommandOptions,
    SessionOptions,
    AgentOptions,
    ContextWindowOptions,
    LoopDetectionOptions,
    ToolCallLoopOptions,
    EmptyAnswerOptions,
    ThinkTagOptions,
    ReactorOptions,
    DangerousCommandOptions,
    ResponsesOptions,
    ToolCallRepairOptions,
    JsonRepairOptions,
    SamplingOptions,
    EditPrecisionOptions,
    PlanningOptions,
    ThinkingBudgetOptions,
    ReasoningAliasOptions,
    PytestCompressionOptions,
    RewritingOptions,
    IdentityOptions,
    RateLimitOptions,
    ResponseCacheOptions,
    RedactionOptions,
    LoggingOptions,
    CaptureOptions,
    PerformanceOptions,
    UsageOptions,
    PriceOptions,
    AuditOptions,
    InternalApiOptions,
)
