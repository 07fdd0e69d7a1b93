"""CFG-01 as a property: whatever sources speak of an option, the strongest is effective and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.config import Option, Saved, load_settings
from llm_proxy.option_groups import GROUPS

OPTIONS = [option for group in GROUPS for option in group.options if option.path and not option.keyed]
# What such an option names must exist; an empty file says nothing of whatever it is about.
EMPTY_FILES = [str(Path(__file__).with_name("__init__.py")), str(Path(__file__).parents[1] / "__init__.py")]
RANKS = ("flag", "set", "env", "generic", "saved", "file")


def texts(option: Option) -> st.SearchStrategy[str]:
    """Valid values of an option, as text."""
    kind = option.kind
    if option.path == "default_backend":
        return st.sampled_from(["openai", "gemini", "zai", "demo"])
    if option.path == "command_prefix":
        return st.sampled_from(["!/", "##", "ab", "[[x"])
    if option.path == "logging.format":
        return st.sampled_from(["json", "%(message)s"])
    if option.path == "auth.bypass_paths":
        return st.sampled_from(["/a", "/b", "/c/d"])
    if option.path in {"auth.trusted_ips", "auth.trusted_proxies"}:
        return st.sampled_from(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    if option.path == "auth.brute_force_protection.max_block_seconds":
        # Less than the first block is refused.
        return st.integers(30, 90).map(str)
    if option.path in {"auth.allowed_origins", "allowed_redirect_origins"}:
        return st.sampled_from(["https://a.test", "http://b.test:8080"])
    if option.path.startswith("identity.") and option.path.endswith(".mode"):
        # Mode `override` alone is refused: it needs a value.
        return st.sampled_from(["default", "passthrough"])
    if option.path == "session.planning_phase.enabled":
        # True alone is refused: it needs a strong model.
        return st.just("false")
    if option.path in {"thinking_budget", "session.planning_phase.overrides.thinking_budget"}:
        return st.sampled_from(["-1", "0", "128", "65536"])
    if option.path == "reasoning_alias_settings":
        return st.sampled_from(['[{"model":"a*","modes":{}}]', '[{"model":"b","modes":{}}]'])
    if option.path == "tool_call_reactor.steering_rules":
        return st.sampled_from([msgspec.json.encode([steering_rule(name)]).decode() for name in "ab"])
    if option.path == "model_aliases":
        return st.sampled_from(
            ['[{"pattern":"^a(.*)","replacement":"b"}]', '[{"pattern":"c","replacement":"openai:d"}]']
        )
    if option.path == "logging.per_module":
        return st.sampled_from(['{"httpx":"warning"}', '{"llm_proxy.routing":"debug"}'])
    if option.path == "session.json_repair_schema":
        return st.sampled_from(['{"type":"object"}', '{"required":["a"]}'])
    if option.path in {"loop_detection.max_pattern_length", "loop_detection.max_history_length"}:
        # Less contradicts the other sizes as they come.
        return st.sampled_from(["500", "1000", "8192"])
    if option.path in {"loop_detection.min_pattern_length", "loop_detection.content_chunk_size"}:
        return st.sampled_from(["10", "100", "500"])
    if option.content is not None:
        return st.sampled_from(EMPTY_FILES)
    low = int(kind.minimum if kind.minimum is not None else (kind.above or 0) + 1)
    match kind.base:
        case "bool":
            return st.sampled_from(["true", "false"])
        case "int" | "float":
            # Above the least cooldown, so that no rule between two options is broken.
            return st.integers(low, int(kind.maximum or low + 50)).map(str)
        case "choice":
            return st.sampled_from(kind.choices)
        case "url":
            return st.sampled_from(["http://a.test", "https://b.test/c"])
        case "path":
            return st.sampled_from(["/a", "/b/c"])
        case _:
            return st.sampled_from(["alpha", "beta", "gamma"])


def steering_rule(name: str) -> dict[str, Any]:
    triggers, rate = {"tool_names": [name], "phrases": []}, {"calls_per_window": 1, "window_seconds": 60}
    return {"name": name, "enabled": True, "priority": 50, "triggers": triggers, "message": "m", "rate_limit": rate}


def native(option: Option, text: str) -> Any:
    """The text as a configuration file would hold it."""
    match option.kind.base:
        case "bool":
            return text == "true"
        case "int" | "float":
            return int(text)
        case "records" | "json":
            return msgspec.json.decode(text)
        case _:
            return text


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.path)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_strongest_source_is_effective(option: Option, tmp_path: Path, data: st.DataObject) -> None:
    judge(option, tmp_path, data)


@pytest.mark.long
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.path)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_strongest_of_many_sets_of_sources_is_effective(
    option: Option, tmp_path: Path, data: st.DataObject
) -> None:
    judge(option, tmp_path, data)


def judge(option: Option, tmp_path: Path, data: st.DataObject) -> None:
    """Draws which sources speak and what they say, and asks what is in force."""
    if option.path.startswith("failover.cooldown"):
        values = {rank: data.draw(st.just("1")) for rank in data.draw(st.sets(st.sampled_from(RANKS)))}
    else:
        values = {rank: data.draw(texts(option)) for rank in data.draw(st.sets(st.sampled_from(RANKS)))}
    if not option.env:
        values.pop("env", None)
    if (
        not (option.flags or option.off_flags) or option.kind.base == "records"
    ):  # a flag gives one record, in a form of its own
        values.pop("flag", None)
    argv: list[str] = []
    environ = {"HOME": str(tmp_path)}
    if "flag" in values and option.kind.base == "bool":
        names = option.flags if values["flag"] == "true" else option.off_flags
        if names:
            argv.append(names[0])
        else:
            del values["flag"]
    elif "flag" in values:
        argv += [option.flags[0], values["flag"]]
    if "set" in values:
        argv += ["--set", f"{option.path}={values['set']}"]
    if "env" in values:
        environ[data.draw(st.sampled_from(option.env))] = values["env"]
    if "generic" in values:
        environ["LLM_PROXY__" + option.path.upper().replace(".", "__")] = values["generic"]
    saved = {option.path: native(option, values["saved"])} if "saved" in values else {}
    file = tmp_path / "config.json"
    file.unlink(missing_ok=True)
    if "file" in values:
        content: Any = native(option, values["file"])
        for name in reversed(data.draw(st.sampled_from(option.paths)).split(".")):
            content = {name: content}
        file.write_bytes(msgspec.json.encode(content))

    loaded = load_settings(argv, environ, tmp_path, GROUPS, Saved(saved))

    entry = next(entry for entry in loaded.entries() if entry[0] == option.path)
    winner = next((rank for rank in RANKS if rank in values), None)
    beginnings = {"flag": "flag --", "set": "flag --set", "env": "env ", "generic": "env LLM_PROXY__"}
    beginnings |= {"saved": "saved state", "file": "config.json:1"}
    if winner is None:
        assert entry[2] == "default"
        if option.path != "data_dir":
            assert entry[1] == option.kind.show(option.default)
        return
    assert entry[2].startswith(beginnings[winner])
    assert (winner == "set") == entry[2].startswith("flag --set")
    expected = native(option, values[winner])
    if option.kind.base == "list":
        assert entry[1] == [expected]
    elif option.kind.base == "keys":
        assert entry[1] == ["key#1: ***"]
    elif option.kind.secret:
        assert entry[1] == "***"
    else:
        assert entry[1] == expected
