"""A window of whole turns has the call of each result, in the formats of all providers."""

from __future__ import annotations

from typing import Any

import pytest

from agent_sessions.models import Session

pytestmark = pytest.mark.django_db

ASK: dict[str, Any] = {"role": "user", "content": "ask"}
SAY: dict[str, Any] = {"role": "assistant", "content": "say"}


def chat(*ids: str) -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "f"}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answer(one: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": one, "content": "found"}


#: For each format a message with a call, and one with its result.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openai chat": (chat("c1"), answer("c1")),
    "openai chat, custom tool": (
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}],
        },
        answer("c1"),
    ),
    "openai functions": (
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "look_up", "arguments": "{}"},
        },
        {"role": "function", "name": "look_up", "content": "found"},
    ),
    "openai responses": (
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "c1", "output": "found"},
    ),
    "openai responses, shell": (
        {"type": "local_shell_call", "call_id": "c1", "id": "l1", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c1", "output": "found"},
    ),
    "openai responses, approval": (
        {"type": "mcp_approval_request", "id": "a1", "name": "f", "arguments": "{}"},
        {"type": "mcp_approval_response", "approval_request_id": "a1", "approve": True},
    ),
    "anthropic": (
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "found"}],
        },
    ),
    "anthropic, server tool": (
        {
            "role": "assistant",
            "content": [{"type": "server_tool_use", "id": "t1", "name": "web_search", "input": {}}],
        },
        {
            "role": "assistant",
            "content": [{"type": "web_search_tool_result", "tool_use_id": "t1", "content": []}],
        },
    ),
    "gemini": (
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]},
    ),
    "gemini with ids": (
        {"role": "model", "parts": [{"functionCall": {"id": "g1", "name": "f", "args": {}}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "g1", "name": "f", "response": {}}}],
        },
    ),
    "adk": (
        {
            "author": "agent",
            "content": {
                "role": "model",
                "parts": [{"function_call": {"id": "g1", "name": "f", "args": {}}}],
            },
        },
        {
            "author": "agent",
            "content": {
                "role": "user",
                "parts": [{"function_response": {"id": "g1", "name": "f", "response": {"a": 1}}}],
            },
        },
    ),
    "ai sdk, model messages": (
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look"},
                {"type": "tool-call", "toolCallId": "v1", "toolName": "f", "input": {}},
            ],
        },
        {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "v1",
                    "toolName": "f",
                    "output": {"type": "text", "value": "found"},
                }
            ],
        },
    ),
    "ai sdk, approval": (
        {
            "role": "assistant",
            "content": [{"type": "tool-approval-request", "approvalId": "p1", "toolCallId": "v1"}],
        },
        {
            "role": "tool",
            "content": [{"type": "tool-approval-response", "approvalId": "p1", "approved": True}],
        },
    ),
    "ag-ui": (
        {
            "role": "assistant",
            "id": "m1",
            "toolCalls": [
                {"id": "u1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "id": "m2", "toolCallId": "u1", "content": "found"},
    ),
    "pydantic ai": (
        {
            "kind": "response",
            "parts": [
                {"part_kind": "tool-call", "tool_name": "f", "args": "{}", "tool_call_id": "d1"}
            ],
        },
        {
            "kind": "request",
            "parts": [
                {
                    "part_kind": "tool-return",
                    "tool_name": "f",
                    "content": "found",
                    "tool_call_id": "d1",
                }
            ],
        },
    ),
    "langchain": (
        {
            "type": "ai",
            "data": {
                "content": "",
                "tool_calls": [{"name": "f", "args": {}, "id": "l1", "type": "tool_call"}],
            },
        },
        {"type": "tool", "data": {"content": "found", "tool_call_id": "l1"}},
    ),
}


@pytest.fixture
def window(repository: Any, session: Session) -> Any:
    def window(*messages: dict[str, Any], **wanted: Any) -> list[int]:
        """Store the messages; return the numbers of those in the window."""
        repository.add_messages(session.pk, messages)
        found = repository.get_messages(session.pk, whole_turns=True, **wanted)
        return [message.sequence for message in found]

    return window


@pytest.mark.parametrize("name", PAIRS)
def test_a_result_is_left_out_without_its_call(name: str, window: Any) -> None:
    assert window(ASK, *PAIRS[name], SAY, limit=2) == [4]


@pytest.mark.parametrize("name", PAIRS)
def test_a_result_stays_with_its_call(name: str, window: Any) -> None:
    assert window(ASK, *PAIRS[name], SAY, limit=3) == [2, 3, 4]


def test_of_calls_made_together_all_results_are_left_out_or_none(
    repository: Any, session: Session, window: Any
) -> None:
    assert window(ASK, chat("a", "b"), answer("a"), answer("b"), SAY, limit=2) == [5]
    for limit, numbers in [(1, [5]), (3, [5]), (4, [2, 3, 4, 5]), (5, [1, 2, 3, 4, 5])]:
        found = repository.get_messages(session.pk, limit=limit, whole_turns=True)
        assert [message.sequence for message in found] == numbers


def test_a_late_result_takes_what_stands_before_it_along(window: Any) -> None:
    assert window(chat("a"), ASK, SAY, answer("a"), SAY, limit=4) == [5]


def test_what_is_left_out_takes_the_results_of_its_own_calls_along(window: Any) -> None:
    late = (chat("a"), chat("b"), answer("a"), answer("b"), SAY)
    assert window(*late, limit=4) == [5]


def test_an_id_that_is_used_again_means_the_last_call(window: Any) -> None:
    assert window(chat("a"), answer("a"), chat("a"), answer("a"), limit=2) == [3, 4]


def test_of_results_alone_nothing_is_left(window: Any) -> None:
    assert window(chat("a"), answer("a"), limit=1) == []


def test_a_call_of_responses_stays_with_its_reasoning(
    repository: Any, session: Session, window: Any
) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    call, result = PAIRS["openai responses"]
    assert window(ASK, reasoning, call, result, SAY, limit=3) == [5]
    found = repository.get_messages(session.pk, limit=4, whole_turns=True)
    assert [message.sequence for message in found] == [2, 3, 4, 5]


def test_a_part_with_call_and_result_stands_alone(window: Any) -> None:
    part = {"type": "tool-f", "toolCallId": "v1", "state": "output-available", "output": "found"}
    assert window(ASK, {"role": "assistant", "parts": [part]}, SAY, limit=2) == [2, 3]


def test_a_window_that_follows_begins_behind_the_cut_results(window: Any) -> None:
    assert window(ASK, chat("a"), answer("a"), SAY, after=2) == [4]


def test_messages_of_strange_shapes_are_no_results(window: Any) -> None:
    strange = [
        {"role": "user", "content": "x", "tool_call_id": 7},
        {"role": "user", "content": [{"type": ["tool_result"]}, {"type": "tool_result"}]},
        {"role": "user", "content": "x", "tool_calls": "none", "parts": {"parts": [[[]]]}},
        {"role": "user", "content": [{"tool_call_id": "a", "part_kind": ["tool-return"]}]},
    ]
    assert window(*strange, limit=4) == [1, 2, 3, 4]
