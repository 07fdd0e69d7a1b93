"""Which message is read, and what a provider sees of a conversation with commands (CMD-01, CMD-03, CMD-04)."""

from __future__ import annotations

from collections.abc import Container, Iterable

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.commands import registry
from llm_proxy.commands.messages import (
    Reading,
    clean_history,
    confirmation_mark,
    digest,
    read,
    without_commands,
)
from llm_proxy.conversation.parts import CacheMark, Media, Part, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import Message, Request

REMINDER = "<system-reminder>\nThe project is a widget.\n</system-reminder>"
IMAGE = Media("image", data="aGk=", mime="image/png")


def user(*parts: str | Part) -> Message:
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(*parts: str | Part) -> Message:
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def system(text: str) -> Message:
    return Message("system", (Text(text),))


def result(call_id: str, text: str = "ok") -> ToolResult:
    return ToolResult(call_id, (Text(text),))


def request(*messages: Message) -> Request:
    return Request(dialect="openai-chat", messages=messages)


def known(name: str) -> bool:
    return name != "unknown"


def reading(*messages: Message, strict: bool = False, agent: str = "", most: int = 20, prefix: str = "!/") -> Reading:
    return read(request(*messages), prefix=prefix, strict=strict, agent=agent, most=most)


def names(*messages: Message, strict: bool = False) -> list[str]:
    return [found.name for found in reading(*messages, strict=strict).commands]


def clean(
    *messages: Message,
    prefixes: tuple[str, ...] = ("!/",),
    agent: str = "",
    replies: Container[str] = (),
    confirmations: Iterable[str] = (),
    strict: bool = False,
) -> tuple[Message, ...]:
    cleaned = clean_history(
        request(*messages),
        prefixes=prefixes,
        known=known,
        agent=agent,
        local_replies=replies,
        confirmations=confirmations,
        strict=strict,
    )
    return cleaned.messages


def sent(*messages: Message, strict: bool = False) -> tuple[Message, ...]:
    whole = request(*messages)
    found = read(whole, prefix="!/", strict=strict, agent="", most=20)
    return without_commands(whole, found, known=known).messages


class TestRead:
    def test_a_command_in_the_second_text_is_found_with_its_place(self) -> None:
        found = reading(user("hi"), assistant("hello"), user("one", "!/help(set)"))
        [spot] = found.founds
        assert (spot.message, spot.part, spot.found.start, spot.found.end) == (2, 1, 0, 11)

    def test_only_the_last_message_is_read(self) -> None:
        assert names(user("!/help"), assistant("!/hello"), user("hi")) == []
        assert names(user("!/help"), assistant("!/hello")) == []
        assert names(user("!/help"), assistant(ToolCall("c", "x")), user(result("c", "!/hello"))) == []
        assert names(system("!/help")) == []
        assert names() == []

    def test_a_system_message_behind_the_users_words_hides_nothing(self) -> None:
        assert names(user("!/help"), system("!/hello")) == ["help"]

    def test_text_beside_a_result_is_read_and_the_result_is_not(self) -> None:
        found = reading(user("hi"), assistant(ToolCall("c", "x")), user(result("c", "!/hello"), "!/help"))
        assert [one.name for one in found.commands] == ["help"]
        assert found.command_only is False

    def test_media_are_not_read_and_are_content(self) -> None:
        document = Media("document", text="!/hello", name="!/hello")
        found = reading(user(document, "!/help"))
        assert [one.name for one in found.commands] == ["help"]
        assert found.command_only is False

    def test_command_only_is_white_space_machine_text_and_wrappers(self) -> None:
        assert reading(user(" !/help \n")).command_only
        assert reading(user(REMINDER, "!/help")).command_only
        assert reading(user(f"<task>\n!/help\n</task>\n{REMINDER}")).command_only
        assert not reading(user("!/help", "go")).command_only
        assert not reading(user("!/help\n```\ncode\n```")).command_only
        assert not reading(user("<b>!/help</b> !/help")).command_only
        assert not reading(user(f"{REMINDER} and {REMINDER} !/help")).command_only

    def test_an_earlier_message_of_the_turn_does_not_count(self) -> None:
        found = reading(user("<environment_context>x</environment_context>"), user("fix it"), user("!/help"))
        assert found.command_only

    def test_more_commands_than_allowed(self) -> None:
        assert not reading(user("!/a " * 20)).too_many
        assert reading(user("!/a " * 21)).too_many
        assert reading(user("!/a " * 2, "!/b"), most=2).too_many

    def test_another_prefix(self) -> None:
        assert [one.name for one in reading(user("!/help ##hello"), prefix="##").commands] == ["hello"]

    def test_the_sentences_of_aider_and_mini_swe_agent_are_nobodys(self) -> None:
        tail = "\n\nTo suggest changes to a file you MUST return it.\n\nout.txt\n```\n```\n"
        assert reading(user(f"!/help{tail}"), agent="aider").command_only
        assert not reading(user(f"!/help{tail}")).command_only
        issue = "Please solve this issue: !/help\n\nYou can execute bash commands and edit files here.\n"
        assert reading(user(issue), agent="mini-swe-agent").command_only


class TestStrict:
    def test_a_sentence_with_a_command_is_text(self) -> None:
        said = user("I tried !/help but it didn't work")
        assert names(said, strict=True) == []
        assert sent(said, strict=True) == (said,)

    def test_the_last_line_counts_and_the_rest_is_sent(self) -> None:
        said = user("Some context\n!/model(m)")
        assert names(said, strict=True) == ["model"]
        assert sent(said, strict=True) == (user("Some context"),)

    def test_lines_behind_the_command(self) -> None:
        assert names(user("!/model(m)\n\nplease"), strict=True) == []

    def test_the_last_text_with_content_counts(self) -> None:
        assert names(user("hi\n!/help", REMINDER), strict=True) == ["help"]
        assert names(user("!/help", "please"), strict=True) == []
        assert names(user("please !/hello now", "!/help"), strict=True) == ["help"]

    def test_earlier_turns_are_cut_in_the_same_way(self) -> None:
        first = user("I tried !/help but it didn't work")
        assert clean(first, assistant("I see."), user("go on"), strict=True)[0] is first
        assert clean(user("a\n!/low"), assistant("b"), user("c"), strict=True)[0] == user("a")
        assert clean(user("!/low"), assistant("b"), user("c"), strict=True) == (user("c"),)


class TestWithoutCommands:
    def test_only_the_command_goes(self) -> None:
        assert sent(user("Hello, use !/set(model=b:m) for this")) == (user("Hello, use for this"),)

    def test_unknown_commands_stay(self) -> None:
        assert sent(user("a !/unknown(x) b !/low c")) == (user("a !/unknown(x) b c"),)

    def test_what_is_not_touched_is_the_same_object(self) -> None:
        before, said = user("before"), user(REMINDER, "!/low go", IMAGE)
        messages = sent(before, assistant("yes"), said)
        assert messages[0] is before
        assert messages[2].parts[0] is said.parts[0]
        assert messages[2].parts[2] is IMAGE
        whole = request(before)
        assert without_commands(whole, Reading(), known=known) is whole

    def test_a_text_of_which_nothing_is_left_is_dropped(self) -> None:
        assert sent(user("!/low \n", IMAGE)) == (user(IMAGE),)
        assert sent(user(result("c"), "!/low")) == (user(result("c")),)
        assert sent(user(REMINDER, "!/low", "go")) == (user(REMINDER, "go"),)

    def test_the_rest_of_a_part_stays(self) -> None:
        part = Text("!/low go", cache=CacheMark("1h"))
        assert sent(user(part)) == (user(Text(" go", cache=CacheMark("1h"))),)


class TestHistory:
    def test_a_command_only_exchange_is_dropped(self) -> None:
        hi = user("hi")
        assert clean(user("!/hello"), assistant("banner"), hi) == (hi,)

    def test_several_in_a_row(self) -> None:
        kept = clean(
            user("a"), assistant("b"), user("!/low"), assistant("ok"), user("!/max"), assistant("ok"), user("c")
        )
        assert kept == (user("a"), assistant("b"), user("c"))

    def test_commands_with_text_are_cut(self) -> None:
        kept = clean(user("a !/low b"), assistant("c"), user("d"))
        assert kept == (user("a b"), assistant("c"), user("d"))

    def test_unknown_ones_stay(self) -> None:
        whole = request(user("see !/unknown(x)"), assistant("yes"), user("go"))
        cleaned = clean_history(whole, prefixes=("!/",), known=known, agent="", local_replies=(), confirmations=())
        assert cleaned is whole

    def test_the_last_message_is_not_touched(self) -> None:
        last = user("!/low go")
        assert clean(user("!/low"), assistant("ok"), last)[-1] is last
        assert clean(user("hi"), assistant("ok"), last, system("x"))[2] is last

    def test_nothing_in_results_is_cut(self) -> None:
        messages = (user("a"), assistant(ToolCall("c", "x")), user(result("c", "!/low")), assistant("b"), user("d"))
        assert all(one is other for one, other in zip(clean(*messages), messages, strict=True))

    def test_former_prefixes_are_known(self) -> None:
        kept = clean(
            user("##low"), assistant("ok"), user("a ##max b !/low"), assistant("c"), user("d"), prefixes=("!/", "##")
        )
        assert kept == (user("a b "), assistant("c"), user("d"))

    def test_a_message_of_the_same_turn_without_answer(self) -> None:
        environment = user("<environment_context>\nx\n</environment_context>")
        kept = clean(environment, user("!/low"), assistant("ok"), environment, user("!/max"), user("hi"))
        assert kept == (environment, environment, user("hi"))

    def test_the_answer_to_a_later_message_of_the_turn_stays(self) -> None:
        kept = clean(user("!/low"), user("question"), assistant("answer"), user("hi"))
        assert kept == (user("question"), assistant("answer"), user("hi"))

    def test_a_question_that_was_not_answered_stays(self) -> None:
        kept = clean(user("question"), user("!/low"), assistant("ok"), user("hi"))
        assert kept == (user("question"), user("hi"))

    def test_an_answer_in_several_messages_goes_whole(self) -> None:
        assert clean(user("!/hello"), assistant("ban"), assistant("ner"), user("hi")) == (user("hi"),)

    def test_results_of_other_tools_stay_with_their_call(self) -> None:
        call = assistant(ToolCall("c", "x"))
        kept = clean(
            user("a"),
            call,
            user(result("c"), "!/temperature(9)"),
            assistant("wrong"),
            user("b"),
            replies={digest("wrong")},
        )
        assert kept == (user("a"), call, user(result("c")), user("b"))

    def test_calls_of_a_model_are_not_torn_from_their_question(self) -> None:
        messages = (user("!/low"), assistant(ToolCall("c", "Bash")), user(result("c")), assistant("done"), user("hi"))
        assert clean(*messages) == messages

    def test_media_make_a_message_more_than_a_command(self) -> None:
        assert clean(user("!/low", IMAGE), assistant("a cat"), user("hi"))[:2] == (user(IMAGE), assistant("a cat"))


class TestLocalReplies:
    def test_an_exchange_whose_answer_is_remembered_is_dropped(self) -> None:
        kept = clean(
            user("a"),
            assistant("b"),
            user("!/temperature(9) go"),
            assistant("0 to 2"),
            user("c"),
            replies={digest("0 to 2")},
        )
        assert kept == (user("a"), assistant("b"), user("c"))

    def test_white_space_around_it_does_not_count(self) -> None:
        assert clean(
            user("!/modle"), assistant("Did you\nmean?"), user("c"), replies={digest("\nDid you\r\nmean? \n")}
        ) == (user("c"),)

    def test_other_answers_stay(self) -> None:
        messages = (user("a"), assistant("b"), user("c"))
        assert clean(*messages, replies={digest("x"), digest("")}) == messages
        silent = (user("a"), assistant(""), user("c"))
        assert clean(*silent, replies={digest("")}) == silent

    def test_the_tagged_form_is_recognised_as_it_was_sent(self) -> None:
        said = "<attempt_completion><result>banner</result></attempt_completion>"
        assert clean(user("!/modle"), assistant(said), user("c"), replies={digest(said)}) == (user("c"),)

    def test_our_calls_and_their_results_never_stay(self) -> None:
        for prefix in ("call_proxy_", "toolu_proxy_"):
            call = ToolCall(f"{prefix}1", "attempt_completion", '{"result": "banner"}')
            answer = result(f"{prefix}1", "The user is content.")
            assert clean(user("!/hello"), assistant("", call), user(answer), user("hi")) == (user("hi"),)
            assert clean(user("!/hello"), assistant(call), user(answer, "hi")) == (user("hi"),)
            assert clean(user("!/set(x"), assistant(Thinking("t"), call), user(answer), user("hi")) == (user("hi"),)
            assert clean(user("!/hello"), assistant(call), user(answer)) == ()

    def test_our_call_beside_other_parts_goes_alone(self) -> None:
        call, other = ToolCall("call_proxy_1", "attempt_completion"), ToolCall("c", "x")
        kept = clean(user("a"), assistant("b", call, other), user(result("call_proxy_1"), result("c")), user("hi"))
        assert kept == (user("a"), assistant("b", other), user(result("c")), user("hi"))

    def test_a_client_that_loses_our_id(self) -> None:
        """Gemini's clients need not return ids; the reader then makes some."""
        call = ToolCall("gemini_0", "attempt_completion", '{"result": "banner"}', native_id=False)
        answer = ToolResult("gemini_0", (Text("ok"),))
        assert clean(user("!/hello"), assistant(call), user(answer), user("hi")) == (user("hi"),)
        assert clean(user("!/modle"), assistant(call), user(answer), user("hi"), replies={digest("banner")}) == (
            user("hi"),
        )

    def test_a_model_may_end_its_task_with_that_tool(self) -> None:
        call = ToolCall("c", "attempt_completion", '{"result": "done"}')
        messages = (user("a"), assistant(call), user(result("c")), user("hi"))
        assert clean(*messages) == messages
        odd = (user("a"), assistant(ToolCall("c", "attempt_completion", "[")), user(result("c")), user("hi"))
        assert clean(*odd) == odd


class TestFirstMessage:
    def test_what_the_client_says_once_goes_to_the_next_message(self) -> None:
        kept = clean(user(REMINDER, "!/hello"), assistant("banner"), user("hi"), assistant("yes"), user("go"))
        assert kept == (user(REMINDER, "hi"), assistant("yes"), user("go"))

    def test_also_when_it_stands_in_one_text(self) -> None:
        kept = clean(user(f"<task>\n!/hello\n</task>\n\n{REMINDER}"), assistant("banner"), user("hi"))
        assert kept == (user(REMINDER, "hi"),)

    def test_also_over_several_commands(self) -> None:
        kept = clean(user(REMINDER, "!/hello"), assistant("x"), user("!/low"), assistant("y"), user("hi"))
        assert kept == (user(REMINDER, "hi"),)

    def test_what_a_later_message_repeats_is_dropped_with_it(self) -> None:
        kept = clean(user("a"), assistant("b"), user("!/low", REMINDER), assistant("ok"), user("c"))
        assert kept == (user("a"), assistant("b"), user("c"))


class TestConfirmations:
    MARK = confirmation_mark("temperature = 0.2\n\n")

    def test_a_confirmation_is_taken_off_the_answer(self) -> None:
        kept = clean(
            user("a !/temperature(0.2)"), assistant("temperature = 0.2\n\nHello"), user("b"), confirmations=[self.MARK]
        )
        assert kept == (user("a "), assistant("Hello"), user("b"))

    def test_the_longest_one_that_fits(self) -> None:
        longer = confirmation_mark("temperature = 0.2\n\nmodel = x\n\n")
        answer = assistant("temperature = 0.2\n\nmodel = x\n\nHello")
        assert clean(user("a"), answer, user("b"), confirmations=[self.MARK, longer])[1] == assistant("Hello")

    def test_other_answers_stay_the_same_objects(self) -> None:
        for text in ("temperature = 0.3\n\nHello", "Hello", ""):
            answer = assistant(text)
            assert clean(user("a"), answer, user("b"), confirmations=[self.MARK, "broken", "x:y"])[1] is answer

    def test_nothing_but_the_confirmation(self) -> None:
        assert clean(user("a"), assistant("temperature = 0.2"), user("b"), confirmations=[self.MARK])[1] == assistant(
            ""
        )


# Random histories: what was typed with and without commands, with what reached the provider in each turn.

SAID = st.sampled_from(["hi", "fix `x`", "see !/unknown(x)", "<task>\ngo\n</task>", "```\n!/low\n```", "> !/low\nwhy?"])
TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("talk"), SAID),
        st.tuples(st.just("command"), st.sampled_from(["!/low", "!/set(a=b) !/hello\n", "<task>\n!/low\n</task>"])),
        st.tuples(st.just("mixed"), SAID),
        st.tuples(st.just("tool"), SAID),
        st.tuples(st.just("local call"), st.just("!/hello")),
        st.tuples(st.just("failing"), SAID),
    ),
    max_size=8,
)


@given(TURNS, st.booleans())
def test_each_turn_sends_the_prefix_of_the_turn_before(turns: list[tuple[str, str]], opening: bool) -> None:
    history: list[Message] = [user(REMINDER)] if opening else []
    upstream: tuple[Message, ...] = ()
    replies: set[str] = set()
    for number, (kind, text) in enumerate([*turns, ("talk", "bye")]):
        typed = {"mixed": f"!/low\n{text}", "failing": f"!/low(=x)\n{text}"}.get(kind, text)
        history.append(user(typed))
        whole = request(*history)
        found = read(whole, prefix="!/", strict=False, agent="", most=20)
        assert found.command_only is (kind in ("command", "local call"))
        asked = without_commands(whole, found, known=known)
        now = clean_history(
            asked, prefixes=("!/",), known=known, agent="", local_replies=replies, confirmations=()
        ).messages
        if kind in ("talk", "mixed", "tool"):
            assert now[: len(upstream)] == upstream
            assert now[-1] == user(text)
            assert not any(
                part for one in now for part in one.parts if isinstance(part, ToolCall) and "proxy" in part.id
            )
            upstream = now
        match kind:
            case "tool":
                history += [
                    assistant(ToolCall(f"c{number}", "x")),
                    user(result(f"c{number}", "!/low")),
                    assistant("done"),
                ]
            case "local call":
                history.append(assistant(ToolCall(f"call_proxy_{number}", "attempt_completion", '{"result": "x"}')))
                history.append(user(result(f"call_proxy_{number}")))
            case "failing":
                replies.add(digest(f"wrong {number}"))
                history.append(assistant(f"wrong {number}"))
            case _:
                history.append(assistant(f"answer {number}"))


def test_what_a_person_types_into_the_result_of_our_own_call_is_the_next_message() -> None:
    """Agents that end a task by `attempt_completion` give the user's next words as its result (AGT-02)."""

    def asked(said: str) -> Request:
        history = (
            Message("user", (Text("<task>!/hello</task>"),)),
            Message("assistant", (ToolCall("call_proxy_1", "attempt_completion", '{"result":"x"}'),)),
            Message("user", (ToolResult("call_proxy_1", (Text(said),)),)),
        )
        return Request(dialect="openai-chat", messages=history)

    request = asked("The user answered:\n<feedback>!/model(m) go on</feedback>")
    cleaned = clean_history(
        request, prefixes=["!/"], known=registry.known, agent="cline", local_replies=[], confirmations=[]
    )
    assert [message.parts for message in cleaned.messages] == [(Text("<feedback>!/model(m) go on</feedback>"),)]
    found = read(cleaned, prefix="!/", strict=False, agent="cline", most=20)
    assert [command.name for command in found.commands] == ["model"]
    assert not found.command_only
    dropped = clean_history(
        asked("done"), prefixes=["!/"], known=registry.known, agent="cline", local_replies=[], confirmations=[]
    )
    assert dropped.messages == ()
