"""RT-13: the models that a client may have meant, found without keeping others waiting."""

from __future__ import annotations

import asyncio

from llm_proxy.server.unserved import _similar


async def test_the_most_similar_names_come_first() -> None:
    known = ("gpt-4o", "gpt-5", "GPT-5-mini", "gpt-5.4-mini", "o4-mini", "text-embedding-3-large")
    assert (await _similar("gpt-5-mimi", known))[0] == "GPT-5-mini"
    assert await _similar("llama-4-scout", known) == []


async def test_others_have_their_turn_while_a_long_list_is_looked_through() -> None:
    known = tuple(f"vendor/model-{number}-instruct" for number in range(1000))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    found = await _similar("vendor/model-500-instrukt", known)
    task.cancel()
    assert found[0] == "vendor/model-500-instruct"
    assert turns >= 10
