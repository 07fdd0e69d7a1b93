"""The options of brute-force protection (OPS-02)."""

from __future__ import annotations

from collections.abc import Iterable

from llm_proxy.config.options import OptionGroup, option


class BruteForceOptions(OptionGroup, path="auth.brute_force_protection", title="Brute-force protection"):
    enabled: bool = option(
        True,
        env="BRUTE_FORCE_PROTECTION_ENABLED",
        switch="brute-force-protection",
        help="block addresses that present too many wrong client keys",
    )
    max_failed_attempts: int = option(
        5,
        env="BRUTE_FORCE_MAX_FAILED_ATTEMPTS",
        flag="--auth-max-failed-attempts",
        minimum=1,
        help="wrong keys after which an address is blocked",
    )
    ttl_seconds: int = option(
        900,
        env="BRUTE_FORCE_TTL_SECONDS",
        flag="--auth-brute-force-ttl",
        minimum=1,
        unit="seconds",
        value_name="SECONDS",
        help="time within which wrong keys are counted together, and after which they are forgotten",
    )
    initial_block_seconds: int = option(
        30,
        env="BRUTE_FORCE_INITIAL_BLOCK_SECONDS",
        flag="--auth-brute-force-initial-block",
        minimum=1,
        unit="seconds",
        value_name="SECONDS",
        help="length of the first block",
    )
    block_multiplier: float = option(
        2.0,
        env="BRUTE_FORCE_BLOCK_MULTIPLIER",
        flag="--auth-brute-force-multiplier",
        minimum=1,
        help="factor by which each further wrong key lengthens the next block",
    )
    valid_keys_pass: bool = option(
        False,
        env="BRUTE_FORCE_VALID_KEYS_PASS",
        help="a right key ends the block of its address; always so on loopback",
    )
    max_block_seconds: int = option(
        3600,
        env="BRUTE_FORCE_MAX_BLOCK_SECONDS",
        flag="--auth-brute-force-max-block",
        minimum=1,
        unit="seconds",
        value_name="SECONDS",
        help="longest block",
    )

    def conflicts(self) -> Iterable[tuple[str, str]]:
        if self.max_block_seconds < self.initial_block_seconds:
            path = "auth.brute_force_protection"
            yield f"{path}.max_block_seconds", f"at least {path}.initial_block_seconds"
