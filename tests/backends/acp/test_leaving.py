"""BE-18, S-12: no process outlives its use, whatever it does against that."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from llm_proxy.backends.acp.agents import Agents
from llm_proxy.backends.acp.narration import Piece
from llm_proxy.conversation.fault import FaultError
from tests.backends.acp.house import House, ask, call, say, until

CANCELLED = {"result": {"stopReason": "cancelled"}}


def processes(house: House) -> list[int]:
    return [entry["pid"] for entry in house.starts] + [entry["child"] for entry in house.journal if "child" in entry]


async def gone(house: House) -> None:
    await until(lambda: not house.left())


async def test_a_client_that_leaves_cancels_the_turn_and_no_process_remains(house: House) -> None:
    house.script([{"spawn": False}, say("Beginning"), {"wait": "session/cancel"}, CANCELLED])
    backend = house.backend()
    response = await backend.open(call("Hi", stream=True))
    assert b"Beginning" in await response.chunk()
    response.close()
    await gone(house)
    assert house.got("session/cancel") == [{"sessionId": "s1"}]
    assert len(processes(house)) == 2
    await until(lambda: backend.running == [])
    house.script([say("Again")])
    assert (await ask(backend, "Hi"))["message"]["content"] == "Again"


async def test_a_client_may_leave_before_the_first_word(house: House) -> None:
    house.script([{"wait": "session/cancel"}, CANCELLED])
    backend = house.backend()
    opening = asyncio.create_task(backend.open(call("Hi")))
    await until(lambda: house.got("session/prompt"))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await gone(house)
    assert house.got("session/cancel") == [{"sessionId": "s1"}]


async def test_a_client_may_leave_during_the_greeting(house: House) -> None:
    house.script(mute=True)
    backend = house.backend()
    opening = asyncio.create_task(backend.open(call("Hi")))
    await until(lambda: house.got("initialize"))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(opening, 0.5)  # it does not wait for the process
    await gone(house)


@pytest.mark.parametrize("later", range(4))
async def test_a_leaving_is_not_lost_when_a_piece_comes_in_the_same_moment(house: House, later: int) -> None:
    house.script([{"stall": 60}])
    opening = asyncio.create_task(house.backend().open(call("Hi")))
    await until(lambda: house.got("session/prompt"))
    turn = next(iter(house.backends[0]._agents._rooms.values())).agent._turn  # type: ignore[union-attr]
    assert turn is not None
    reading = asyncio.create_task(turn.next())
    for _ in range(3):
        await asyncio.sleep(0)
    await turn.add([Piece("text", "A")])
    for _ in range(later):
        await asyncio.sleep(0)
    if reading.cancel():
        with pytest.raises(asyncio.CancelledError):
            await reading
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)


async def test_a_client_may_leave_while_it_waits_for_its_turn(house: House) -> None:
    house.script([say("A1"), {"wait": "session/cancel"}, CANCELLED])
    backend = house.backend()
    first = await backend.open(call("Q1", stream=True))
    second = asyncio.create_task(backend.open(call("Q1", ("assistant", "A1"), "Q2")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(backend.running) == 1
    first.close()
    await gone(house)


async def test_an_agent_that_minds_neither_cancel_nor_sigterm_is_killed_after_five_seconds(house: House) -> None:
    house.script([say("Beginning"), {"stall": 60}], ignores_sigterm=True)
    backend = house.backend()
    response = await backend.open(call("Hi", stream=True))
    loop = asyncio.get_running_loop()
    began = loop.time()
    response.close()
    await gone(house)
    assert 4.0 < loop.time() - began < 7.0


@pytest.mark.parametrize("apart", [False, True])
async def test_children_end_with_it(house: House, apart: bool) -> None:
    house.script([{"spawn": apart}, {"spawn": apart}, say("Beginning"), {"wait": "session/cancel"}, CANCELLED])
    response = await house.backend().open(call("Hi", stream=True))
    response.close()
    await gone(house)
    assert len(processes(house)) == 3


async def test_children_that_fled_an_agent_which_then_died_end_too(house: House) -> None:
    house.script([{"spawn": True}, say("Beginning"), {"exit": 1}])
    response = await house.backend().open(call("Hi", stream=True))
    with pytest.raises(FaultError):
        await response.read()
    response.close()
    await gone(house)


async def test_all_end_with_the_proxy(house: House) -> None:
    house.script([{"spawn": True}, say("Beginning"), {"stall": 60}])
    backend = house.backend()
    one = await backend.open(call("Hi", stream=True, session="one"))
    two = await backend.open(call("Hi", stream=True, session="two"))
    await backend.close()
    assert house.left() == {}
    one.close()
    two.close()


async def test_an_agent_at_work_ends_when_the_back_end_closes_while_it_starts(house: House) -> None:
    house.script(mute=True)
    backend = house.backend()
    opening = asyncio.create_task(backend.open(call("Hi")))
    await until(lambda: house.got("initialize"))
    opening.cancel()
    await backend.close()
    assert house.left() == {}
    await asyncio.gather(opening, return_exceptions=True)


async def test_twenty_clients_that_leave_leave_nothing_behind(house: House) -> None:
    house.script([say("Beginning"), {"wait": "session/cancel"}, CANCELLED])
    backend = house.backend()
    for round in range(4):
        calls = [call("Hi", stream=True, session=f"{round}-{number}") for number in range(5)]
        for response in await asyncio.gather(*(backend.open(one) for one in calls)):
            response.close()
        await gone(house)
    await until(lambda: not backend.running)
    assert len(house.starts) == 20
    gc.collect()
    assert len([task for task in asyncio.all_tasks() if "agent" in task.get_name()]) == 0


async def test_a_client_that_reads_slowly_holds_the_agent_back(house: House) -> None:
    flood: list[dict[str, Any]] = [say("x" * 60_000)] * 200
    house.script([*flood, say("end")])
    backend = house.backend()
    response = await backend.open(call("Hi", stream=True))
    await until(lambda: backend.running)
    agent = next(iter(backend._agents._rooms.values())).agent
    assert agent is not None and agent._turn is not None
    await asyncio.sleep(0.3)
    assert agent._turn._held < 2 * 2**20
    assert agent._process._held < 4 * 2**20
    data = await response.read()
    response.close()
    assert data.count(b"x" * 60_000) == 200
    assert b'"content":"end"' in data


async def test_more_agents_than_may_be_end_the_one_that_was_idle_longest(house: House) -> None:
    house.script([say("ok"), {"result": {"stopReason": "end_turn"}}])
    backend = house.backend()
    backend._agents = Agents(backend._agents._settings, 60.0, most=2)
    await ask(backend, "Hi", session="one")
    await ask(backend, "Hi", session="two")
    await ask(backend, "Hi", session="three")
    assert len(house.starts) == 3
    assert {key.session for key in backend._agents._rooms} == {"two", "three"}
    await until(lambda: len([line for line in house.left().values() if "launcher.py" in line]) == 2)
    house.script([say("Beginning"), {"wait": "session/cancel"}, CANCELLED])
    busy = [await backend.open(call("Hello", stream=True, session=name)) for name in ("four", "five")]
    with pytest.raises(FaultError) as caught:
        await backend.open(call("Hi", session="six"))
    assert caught.value.fault.status_code == 503
    for response in busy:
        response.close()
    await gone(house)


async def test_a_line_without_an_end_is_not_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.backends.acp.process.LONGEST_LINE", 100_000)
    house.script([{"raw": "x" * 1_000_000}, say("never")])
    with pytest.raises(FaultError, match="too long"):
        await house.backend().open(call("Hi"))
    await gone(house)
