"""The options of the server, of access and of the rooms that have no file of their own.

The list of all groups is `llm_proxy.option_groups`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from llm_proxy.config.document import Node
from llm_proxy.config.kinds import DATABASE, Mismatch, ModelDefaults, NamedKey
from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.wire.networks import check_network
from llm_proxy.wire.secrets import Secret


class LocationOptions(OptionGroup, title="Files"):
    """Where the configuration is read from; these options have no place in a file."""

    config: Path | None = option(
        None,
        at="",
        env="LLM_PROXY_CONFIG",
        flag="--config",
        value_name="FILE",
        default_text="./config.yaml, ./config.yml, ./config.json, then the user's configuration directory",
        help="configuration file, YAML or JSON",
    )
    env_file: Path | None = option(
        None,
        at="",
        env="LLM_PROXY_ENV_FILE",
        flag="--env-file",
        value_name="FILE",
        default_text="./.env",
        help="file with environment variables; real variables win over it",
    )


def _check_host(value: str) -> str | None:
    # A system takes an empty name for all of its addresses, which `--host "$UNSET"` does not mean.
    return None if value.strip() else "an address of this machine"


class ServerOptions(OptionGroup, path="proxy", title="Server and process"):
    host: str = option(
        "127.0.0.1",
        aliases=("host",),
        env=("PROXY_HOST", "APP_HOST"),
        flag="--host",
        value_name="ADDRESS",
        check=_check_host,
        restart=True,
        help="address to listen on; with authentication disabled always a loopback address",
    )
    port: int = option(
        8000,
        aliases=("port",),
        env=("PROXY_PORT", "APP_PORT"),
        flag="--port",
        minimum=0,
        maximum=65535,
        restart=True,
        help="port to listen on; 0 takes any free port and prints it",
    )
    anthropic_port: int | Literal["off"] | None = option(
        None,
        aliases=("anthropic_port",),
        env="ANTHROPIC_PORT",
        flag="--anthropic-port",
        minimum=0,
        maximum=65535,
        words=("off",),
        restart=True,
        value_name="N|off",
        default_text="port + 1",
        help="port that serves Anthropic Messages without a path prefix",
    )
    timeout: float = option(
        300.0,
        aliases=("proxy_timeout",),
        env="PROXY_TIMEOUT",
        flag="--timeout",
        above=0,
        unit="seconds",
        value_name="SECONDS",
        help="longest silence of a provider within one attempt",
    )
    connect_timeout: float = option(
        10.0,
        env="PROXY_CONNECT_TIMEOUT",
        flag="--connect-timeout",
        above=0,
        unit="seconds",
        value_name="SECONDS",
        help="longest time to connect to a provider, TLS included",
    )
    stream_keepalive_seconds: float = option(
        15.0,
        env="STREAM_KEEPALIVE_SECONDS",
        flag="--stream-keepalive",
        minimum=0,
        maximum=300,
        unit="seconds",
        value_name="SECONDS",
        help="silence after which a stream gets a keep-alive; 0 turns keep-alives off",
    )
    max_request_bytes: int = option(
        67_108_864,
        env="MAX_REQUEST_BYTES",
        flag="--max-request-bytes",
        minimum=1024,
        unit="bytes",
        value_name="BYTES",
        help="largest request body; a larger one is refused with status 413",
    )
    upstream_proxy: str | None = option(
        None,
        kind="url",
        env_standard=("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"),
        flag="--upstream-proxy",
        help="HTTP proxy for calls to providers; without it the standard variables are honoured",
    )
    shutdown_grace: float = option(
        30.0,
        env="SHUTDOWN_GRACE",
        flag="--shutdown-grace",
        minimum=0,
        unit="seconds",
        value_name="SECONDS",
        help="time that open streams get to end after a stop signal",
    )
    data_dir: Path | None = option(
        None,
        at="data_dir",
        env="LLM_PROXY_DATA_DIR",
        flag="--data-dir",
        value_name="DIRECTORY",
        restart=True,
        default_text="the user's data directory",
        help="directory of usage records, saved state and captures",
    )
    config_watch: bool = option(
        True,
        at="config_watch",
        env="CONFIG_WATCH",
        switch="config-watch",
        help="take over changes of the configuration's files without a restart",
    )
    allow_admin: bool = option(
        False,
        at="allow_admin",
        env="ALLOW_ADMIN",
        flag="--allow-admin",
        help="no warning when running as root or administrator",
    )
    daemon: bool = option(
        False,
        at="daemon",
        env="PROXY_DAEMON",
        flag="--daemon",
        restart=True,
        help="run in the background; needs a log file (--log); not on Windows",
    )


BYPASS_PATHS: Final = (
    "/",
    "/health",
    "/internal/health",
    "/docs",
    "/openapi.json",
    "/redoc",
    "/anthropic/health",
    "/anthropic/v1/health",
)


def _check_path(value: str) -> str | None:
    return None if value.startswith("/") else "a path that begins with /"


def _check_origin(value: str) -> str | None:
    from urllib.parse import urlsplit

    parts = urlsplit(value)
    plain = parts.scheme in {"http", "https"} and parts.netloc and not parts.path.strip("/") and not parts.query
    return None if plain else "an origin such as https://app.example"


class AuthOptions(OptionGroup, path="auth", title="Access"):
    api_keys: tuple[NamedKey, ...] = option(
        (),
        aliases=("api_keys",),
        env_numbered="LLM_INTERACTIVE_PROXY_API_KEY",
        env="API_KEYS",
        default_text="one generated at start",
        help="keys that clients present; a variable with a comma list, or numbered variables",
    )
    auth_token: Secret | None = option(
        None, env="AUTH_TOKEN", help="a further credential, also accepted in X-Auth-Token"
    )
    admin_keys: tuple[str, ...] = option(
        (),
        env="ADMIN_KEYS",
        item="key names",
        help="names of the client keys that may change the proxy for all",
    )
    disable_auth: bool = option(
        False,
        aliases=("disable_auth",),
        env="DISABLE_AUTH",
        flag="--disable-auth",
        help="ask no client for a key; forces a loopback address",
    )
    bypass_paths: tuple[str, ...] = option(
        BYPASS_PATHS,
        env="AUTH_BYPASS_PATHS",
        item="paths",
        check=_check_path,
        help="paths that need no key",
    )
    trusted_ips: tuple[str, ...] = option(
        (),
        env="TRUSTED_IPS",
        flag="--trusted-ip",
        item="IP addresses or blocks",
        check=check_network,
        value_name="ADDRESS",
        help="addresses or blocks such as 10.0.0.0/8 whose clients need no key",
    )
    allowed_hosts: tuple[str, ...] = option(
        (),
        env="ALLOWED_HOSTS",
        flag="--allowed-host",
        item="host names",
        value_name="NAME",
        default_text="loopback names and the bind address; any name if the bind is not loopback",
        help="names accepted in the Host header",
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        env="ALLOWED_ORIGINS",
        flag="--allowed-origin",
        item="origins",
        check=_check_origin,
        value_name="ORIGIN",
        help="browser origins that may call the proxy",
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        env="TRUSTED_PROXIES",
        flag="--trusted-proxy",
        item="IP addresses or blocks",
        check=check_network,
        value_name="ADDRESS",
        help="reverse proxies whose X-Forwarded-For header says who the client is",
    )


class BackendGeneralOptions(OptionGroup, title="Back-ends: general"):
    default_backend: str | None = option(
        None,
        aliases=("backends.default_backend",),
        env="LLM_BACKEND",
        flag="--default-backend",
        hidden_flags=("--backend",),
        value_name="ID",
        chat=ChatKey("default-backend", "process"),
        default_text="the first functional one",
        help="back-end of requests that name none",
    )
    model_list_ttl: int = option(
        300,
        env="MODEL_LIST_TTL",
        minimum=0,
        unit="seconds",
        help="time after which a provider's list of models is read again",
    )
    model_defaults: dict[str, ModelDefaults] = option(
        {}, help="values for requests that leave them open, by `backend:model`, model or a pattern with `*`"
    )
    health_checks: bool = option(
        False,
        at="health_checks.enabled",
        env="HEALTH_CHECKS_ENABLED",
        env_off="DISABLE_HEALTH_CHECKS",
        switch="health-checks",
        help="one cheap call per back-end on first use and every 300 seconds",
    )


class FailoverOptions(OptionGroup, path="failover", title="Failover"):
    max_wait_seconds: float = option(
        0.0,
        env="FAILOVER_MAX_WAIT_SECONDS",
        flag="--failover-max-wait",
        minimum=0,
        maximum=120,
        unit="seconds",
        value_name="SECONDS",
        help="longest wait for a cooling key when nothing else is left",
    )
    cooldown_initial_seconds: float = option(
        1.0,
        env="FAILOVER_COOLDOWN_INITIAL_SECONDS",
        above=0,
        unit="seconds",
        help="first cooldown when the provider names no time",
    )
    cooldown_max_seconds: float = option(
        60.0,
        env="FAILOVER_COOLDOWN_MAX_SECONDS",
        above=0,
        unit="seconds",
        help="longest cooldown when the provider names no time",
    )
    key_disable_seconds: float = option(
        600.0,
        env="FAILOVER_KEY_DISABLE_SECONDS",
        minimum=1,
        unit="seconds",
        help="pause of a key that the provider refused",
    )

    def conflicts(self) -> Iterable[tuple[str, str]]:
        if self.cooldown_max_seconds < self.cooldown_initial_seconds:
            yield "failover.cooldown_max_seconds", "at least failover.cooldown_initial_seconds"


class ResponsesOptions(OptionGroup, path="responses", title="Responses"):
    structured_retries: int = option(
        1,
        env="STRUCTURED_RETRIES",
        minimum=0,
        maximum=3,
        help="further tries when an answer does not conform to the requested schema",
    )
    store_ttl_seconds: int = option(
        3600,
        env="RESPONSES_STORE_TTL_SECONDS",
        minimum=1,
        unit="seconds",
        help="life of a stored response",
    )
    store_max_items: int = option(
        1000, env="RESPONSES_STORE_MAX_ITEMS", minimum=1, help="greatest number of stored responses"
    )


def _check_format(value: str) -> str | None:
    if value == "json":
        return None
    from logging import INFO, Formatter, LogRecord

    record = LogRecord("", INFO, "", 0, "", None, None)
    vars(record).update(request_id="", session_id="")
    try:
        Formatter(value).format(record)
    except (ValueError, TypeError, KeyError):
        return "a Python format string or json"
    return None


LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def _read_levels(node: Node) -> dict[str, str]:
    """Levels by the name of the logger. Raises Mismatch."""
    if not isinstance(node.value, dict):
        raise Mismatch("a map from logger name to level", node)
    levels: dict[str, str] = {}
    for name, item in node.value.items():
        level = item.value.strip().lower() if isinstance(item.value, str) else ""
        if level not in LOG_LEVELS:
            raise Mismatch(f"one of {', '.join(LOG_LEVELS)} for the logger {name}", item)
        levels[name] = level
    return levels


class LoggingOptions(OptionGroup, path="logging", title="Logging"):
    level: Literal["debug", "info", "warning", "error", "critical"] = option(
        "info",
        env="LOG_LEVEL",
        flag="--log-level",
        value_name="LEVEL",
        help="least severe messages that are logged",
    )
    format: str = option(
        "%(asctime)s %(levelname)s %(name)s: %(message)s",
        env="LOG_FORMAT",
        flag="--log-format",
        check=_check_format,
        value_name="FORMAT",
        help="Python format string, or json",
    )
    file: Path | None = option(
        None,
        aliases=("logging.log_file",),
        env="LOG_FILE",
        flag="--log",
        hidden_flags=("--log-file",),
        value_name="FILE",
        default_text="standard error",
        help="file that gets the log",
    )
    max_size_mb: int = option(
        10,
        env="LOG_MAX_SIZE_MB",
        minimum=0,
        unit="megabytes",
        help="size at which the log file is put aside and a new one begun; 0 = never",
    )
    backup_count: int = option(
        5, env="LOG_BACKUP_COUNT", minimum=0, help="files put aside that are kept, as FILE.1 (the newest), FILE.2, …"
    )
    per_module: dict[str, str] = option(
        {},
        reader=_read_levels,
        kind="json",
        item="logger name to level",
        help="levels of single loggers and all below them, such as `llm_proxy.routing: debug`",
    )
    request_logging: bool = option(
        False, env="REQUEST_LOGGING", help="one line when a request has been read, without its body"
    )
    response_logging: bool = option(
        False, env="RESPONSE_LOGGING", help="one line when an answer has ended, without its body"
    )


class PerformanceOptions(OptionGroup, path="performance", title="Performance"):
    summary: bool = option(
        True,
        env="PERFORMANCE_SUMMARY",
        switch="performance-summary",
        help="one line per request that says where its time went, and the header x-llm-proxy-overhead-ms",
    )


class UsageOptions(OptionGroup, path="usage_tracking", title="Usage"):
    enabled: bool = option(
        True,
        env="USAGE_TRACKING_ENABLED",
        env_off="DISABLE_ACCOUNTING",
        off_flag="--disable-accounting",
        help="record tokens, cost and duration of each call",
    )
    repository: Literal["file", "in_memory"] = option(
        "file", env="USAGE_REPOSITORY", help="where usage and audit are kept"
    )
    file_path: str | None = option(
        None,
        env="USAGE_FILE_PATH",
        kind="path",
        item=DATABASE,
        default_text="usage.sqlite3 in the data directory",
        help="SQLite file of the repository `file`, a directory for it, or an address such as postgresql://user@host/name",
    )
    retention_days: int = option(
        365,
        env="USAGE_RETENTION_DAYS",
        minimum=0,
        maximum=36_500,
        unit="days",
        help="age at which a usage row is deleted; 0 keeps for ever",
    )


class AuditOptions(OptionGroup, path="audit", title="Audit"):
    enabled: bool = option(
        False,
        env="AUDIT_ENABLED",
        switch="audit",
        help="keep the texts of requests, answers and commands, without secrets",
    )
    file: Path | None = option(
        None, env="AUDIT_FILE", help="JSON Lines file that gets a copy of each entry of the audit log"
    )
    retention_days: int = option(
        30,
        env="AUDIT_RETENTION_DAYS",
        minimum=0,
        maximum=36_500,
        unit="days",
        help="age at which an entry of the audit log is deleted; 0 keeps for ever",
    )


class InternalApiOptions(OptionGroup, path="internal_api", title="Internal pages"):
    enabled: bool = option(True, env="INTERNAL_API_ENABLED", help="serve the pages below /internal")
