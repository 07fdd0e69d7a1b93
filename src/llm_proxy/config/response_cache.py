"""The options of the response cache (OPS-15): whether it is on, how long an answer lives in it, and how much it may hold."""

from __future__ import annotations

from llm_proxy.config.options import OptionGroup, option


class ResponseCacheOptions(OptionGroup, path="response_cache", title="Response cache"):
    enabled: bool = option(
        False,
        env="RESPONSE_CACHE_ENABLED",
        switch="response-cache",
        help="answer repeated identical requests (temperature 0, no tools, not streamed) from memory",
    )
    ttl: int = option(
        3600, env="RESPONSE_CACHE_TTL", minimum=1, unit="seconds", help="for how long an answer is given again"
    )
    max_entries: int = option(1000, env="RESPONSE_CACHE_MAX_ENTRIES", minimum=1, help="greatest number of kept answers")
    max_bytes: int = option(
        67_108_864, env="RESPONSE_CACHE_MAX_BYTES", minimum=1, unit="bytes", help="greatest size of all kept answers"
    )
