"""Symptoms of installation, configuration, and of what the proxy keeps on disk."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from tests.e2e.asking import body_of
from tests.e2e.keeping import until
from tests.e2e.symptoms import CHAT, Proxies, log_with, seen, symptom

# Installation


@symptom("The port is in use")
def port(proxies: Proxies) -> str:
    return proxies.run("--port", str(proxies.scene.proxy.main[1]))


@symptom("The port for Anthropic clients is taken")
def anthropic_port(proxies: Proxies) -> str:
    return proxies.broken.log


@symptom("A library is not installed")
def library(proxies: Proxies) -> str:
    redis = proxies.run(
        "--set", "session.repository=redis", "--set", "session.redis_url=redis://127.0.0.1:1", hide="redis"
    )
    postgres = proxies.run("--set", "usage_tracking.file_path=postgresql://127.0.0.1/usage", hide="psycopg")
    google = seen(proxies.broken.post(CHAT, body_of("openai-chat", "cloud:gemini-2.5-pro")))
    return redis + postgres + google


@symptom("The data directory cannot be used")
def data_directory(proxies: Proxies) -> str:
    return proxies.broken.log


# Configuration


def checked(proxies: Proxies, text: str) -> str:
    file = proxies.folder / "checked.yaml"
    file.write_text(text)
    return proxies.run("config", "check", str(file))


@symptom("An option is not known")
def unknown_key(proxies: Proxies) -> str:
    flag = proxies.run("--prot", "8000")
    return flag + checked(proxies, "default_backnd: demo\n")


@symptom("A value is not what an option takes")
def wrong_value(proxies: Proxies) -> str:
    return checked(proxies, "proxy:\n  port: eighty\n")


@symptom("A variable that the file names is not set")
def unset_variable(proxies: Proxies) -> str:
    return checked(proxies, "backends:\n  openai: {api_key: '${NO_SUCH_VARIABLE}'}\n")


@symptom("The start warns of a key in the file")
def literal_key(proxies: Proxies) -> str:
    return proxies.broken.log


def reloaded(proxies: Proxies, **config: object) -> str:
    proxy = proxies.damaged
    proxies.write("damaged", {"backends": {"demo": {"type": "demo"}}, **config})
    return seen(proxy.post("/internal/reload", {}))


@symptom("An edit of the configuration has no effect")
def no_effect(proxies: Proxies) -> str:
    answer = reloaded(proxies, session={"repository": "in_memory"})
    return answer + log_with(proxies.damaged, "a restart is needed for")


@symptom("An edit of the configuration is refused")
def refused_edit(proxies: Proxies) -> str:
    answer = reloaded(proxies, prxy={})
    return answer


@symptom("What was changed in the chat is gone after a restart")
def saved_state(proxies: Proxies) -> str:
    return proxies.damaged.log


# Sessions


@symptom("The session store cannot be reached")
def session_store(proxies: Proxies) -> str:
    return log_with(proxies.broken, "Redis cannot be used")


@symptom("Sessions begin anew after a crash")
def session_file(proxies: Proxies) -> str:
    return log_with(proxies.damaged, "sessions begin anew")


# Logs and records


@symptom("The log file cannot be written")
def log_file(proxies: Proxies) -> str:
    return proxies.run("--log", "/dev/null/proxy.log")


@symptom("`--daemon` does not start")
def daemon(proxies: Proxies) -> str:
    return proxies.run("--daemon")


@symptom("Lines are missing from the log")
def dropped_lines(proxies: Proxies) -> str:
    return json.dumps(proxies.scene.proxy.get("/internal/status").json)


@symptom("The capture stays empty")
def capture(proxies: Proxies) -> str:
    nothing = proxies.run("capture", "list")
    return nothing + log_with(proxies.broken, "the capture cannot be written")


@symptom("The audit file stays empty")
def audit_file(proxies: Proxies) -> str:
    return log_with(proxies.broken, "the audit log cannot be written")


@symptom("Usage figures are gone after a crash")
def ledger(proxies: Proxies) -> str:
    return log_with(proxies.damaged, "records begin anew")


@symptom("Usage figures come late")
def locked_ledger(proxies: Proxies) -> str:
    proxies.ask("up-chat:m")
    file = proxies.folder / "scene" / "data" / "usage.sqlite3"
    until(lambda: file.exists() and file.stat().st_size > 0, "the database")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        proxies.ask("up-chat:m")
        return log_with(proxies.scene.proxy, "records wait in memory")


@symptom("The usage page says 404")
def no_usage(proxies: Proxies) -> str:
    return seen(proxies.locked.get("/usage/stats"))


@symptom("The audit page says 404")
def no_audit(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.get("/audit/logs"))
