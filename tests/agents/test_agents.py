"""Claude Code, Codex CLI and Gemini CLI each write a file through a tool call.

Once straight to the scripted model of their own protocol, which proves the script, and then by way of the
proxy with a scripted model of each of the four protocols.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.agents.clients import AGENTS, Agent, Setting
from tests.agents.errand import Errand
from tests.agents.programs import Ran
from tests.agents.proxy import proxy_before
from tests.agents.scripted import ScriptedModel, scripted_model
from tests.support.shared import PROTOCOLS, Protocol

pytestmark = pytest.mark.long


@pytest.fixture
def errand(tmp_path: Path) -> Errand:
    folder = tmp_path / "work"
    folder.mkdir()
    return Errand(f"ERRAND-{secrets.token_hex(4)}", folder)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def check(errand: Errand, model: ScriptedModel, ran: Ran, more: str = "") -> None:
    """The file is there to the byte, the agent ended well and told the model's last words, all asked well."""
    told = f"{model.story()}\nagent: {ran.status}\n{ran.output[-3000:]}\n{ran.errors[-3000:]}\n{more}"
    assert model.problems == [], told
    assert errand.path.is_file(), told
    assert errand.path.read_bytes() == errand.content.encode(), told
    assert ran.status == 0, told
    assert errand.last_words in ran.output, told
    assert (len(model.calls), model.ends) == (1, 1), told


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_the_agent_writes_a_file_straight_from_the_scripted_model(agent: Agent, errand: Errand, home: Path) -> None:
    with scripted_model(agent.protocol, errand, emitted=False) as model:
        ran = agent.run(Setting(model.url, agent.own_model, home, errand.prompt), errand.folder)
        check(errand, model, ran)


@pytest.mark.parametrize("back", PROTOCOLS)
@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_the_agent_writes_a_file_by_way_of_the_proxy(
    agent: Agent, back: Protocol, errand: Errand, home: Path, tmp_path: Path
) -> None:
    translated = back != agent.protocol
    with (
        scripted_model(back, errand, emitted=translated) as model,
        proxy_before(back, model.url, tmp_path) as proxy,
    ):
        setting = Setting(proxy.url + agent.prefix, proxy.model, home, errand.prompt)
        ran = agent.run(setting, errand.folder)
        check(errand, model, ran, f"proxy:\n{proxy.process.said()}")
        assert {ask.model for ask in model.asks} == {"m"}, model.story()


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_the_agents_own_model_name_goes_to_the_default_back_end(
    agent: Agent, errand: Errand, home: Path, tmp_path: Path
) -> None:
    with (
        scripted_model("openai-chat", errand, emitted=True) as model,
        proxy_before("openai-chat", model.url, tmp_path) as proxy,
    ):
        setting = Setting(proxy.url + agent.prefix, agent.own_model, home, errand.prompt)
        ran = agent.run(setting, errand.folder)
        check(errand, model, ran, f"proxy:\n{proxy.process.said()}")
        assert agent.own_model in {ask.model for ask in model.asks}, model.story()
