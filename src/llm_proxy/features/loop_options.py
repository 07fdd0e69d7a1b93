"""The options of loop detection that a session may change (CMD-15)."""

from __future__ import annotations

from typing import Literal

from llm_proxy.config.options import ChatKey, OptionGroup, option


class LoopDetectionOptions(OptionGroup, path="loop_detection", title="Loop detection"):
    enabled: bool = option(
        True,
        env="LOOP_DETECTION_ENABLED",
        switch="loop-detection",
        chat=ChatKey("loop-detection", "session", ("loop", "loop-detection-enabled")),
        help="stop answers that repeat themselves",
    )


class ToolCallLoopOptions(OptionGroup, path="tool_call_loop", title="Tool-call loops"):
    enabled: bool = option(
        True,
        env="TOOL_LOOP_DETECTION_ENABLED",
        switch="tool-loop-detection",
        chat=ChatKey("tool-loop-detection", "session", ("tool-loop", "tool-loop-detection-enabled")),
        help="stop tool calls that repeat without progress",
    )
    max_repeats: int = option(
        4,
        env="TOOL_LOOP_MAX_REPEATS",
        minimum=2,
        chat=ChatKey("tool-loop-max-repeats", "session", ("tool-loop-repeats", "max-repeats")),
        help="equal tool calls with which a loop is found",
    )
    ttl_seconds: int = option(
        120,
        env="TOOL_LOOP_TTL_SECONDS",
        minimum=1,
        unit="seconds",
        chat=ChatKey("tool-loop-ttl", "session", ("tool-loop-ttl-seconds", "ttl")),
        help="time within which equal calls count",
    )
    mode: Literal["break", "chance_then_break", "warn"] = option(
        "break",
        env="TOOL_LOOP_MODE",
        spellings={"block": "break", "chance_then_block": "chance_then_break", "chance": "chance_then_break"},
        chat=ChatKey("tool-loop-mode", "session", ("loop-mode",)),
        help="what happens when a loop is found",
    )
