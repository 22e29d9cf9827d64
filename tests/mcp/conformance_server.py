"""Our server object with what the conformance suite wants to find on a server, on streamable HTTP: python -m ... PORT

Tools, resources and prompts of every kind of content, progress, questions in both eras, and the parts of the protocol that
Parhelia itself has no use for: completion, logging, the client's model, subscriptions, streams that are taken up again.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver import Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.server.streamable_http import EventMessage, EventStore
from mcp_types import (
    AudioContent,
    CallToolResult,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import Field

from parhelia_mcp.context import Context
from parhelia_mcp.mcp_server.server import Server, build

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
CHOICES = {
    "untitledSingle": {"type": "string", "enum": ["one", "two"]},
    "titledSingle": {"type": "string", "oneOf": [{"const": "one", "title": "One"}, {"const": "two", "title": "Two"}]},
    "legacyEnum": {"type": "string", "enum": ["one", "two"], "enumNames": ["One", "Two"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["one", "two"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": [{"const": "one", "title": "One"}]}},
}
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "here", "type": "object", "properties": {"city": {"type": "string"}}}},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
    "if": {"required": ["name"]},
    "then": {"required": ["name"]},
    "else": {"required": ["address"]},
    "additionalProperties": False,
}
IMAGE = ImageContent(type="image", data=PNG, mime_type="image/png")


def words(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def embedded(uri: str, text: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, text=text, mime_type=kind))


def question(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str, most: int = 100) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=words(text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=most))


def contents(server: Server) -> None:
    """Tools, resources and prompts that answer at once."""
    fixed: dict[str, list[Any]] = {
        "test_simple_text": [words("This is a simple text response for testing.")],
        "test_image_content": [IMAGE],
        "test_audio_content": [AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
        "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
        "test_multiple_content_types": [
            words("Multiple content types test:"),
            IMAGE,
            embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
        ],
    }
    for name, content in fixed.items():
        server.add_tool(_answering(content), name=name, description=name, structured_output=False)

    @server.tool(description="test_error_handling")
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    @server.resource("test://static-text", mime_type="text/plain")
    def text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def binary() -> bytes:
        return b"\x89PNG"

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.prompt(description="test_simple_prompt")
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description="test_prompt_with_arguments")
    def test_prompt_with_arguments(
        arg1: Annotated[str, Field(description="One")], arg2: Annotated[str, Field(description="Two")]
    ) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description="test_prompt_with_embedded_resource")
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        shown = embedded(resourceUri, "Embedded resource content for testing.")
        return [UserMessage(part) for part in (shown, words("Please process it."))]

    @server.prompt(description="test_prompt_with_image")
    def test_prompt_with_image() -> list[UserMessage]:
        return [UserMessage(part) for part in (IMAGE, words("Please analyze it."))]


def _answering(content: list[Any]) -> Callable[[], CallToolResult]:
    def tool() -> CallToolResult:
        return CallToolResult(content=content)

    return tool


def capital() -> Sample:
    message = SamplingMessage(role="user", content=words("What is the capital of France?"))
    return Sample([message], max_tokens=20)


async def test_missing_capability(got: Annotated[CreateMessageResult, Resolve(capital)]) -> str:
    return f"LLM response: {got.content}"


def questions(server: Server) -> None:
    """Tools that tell how far they are, and ask in the middle of a call or between two."""
    server.add_tool(test_missing_capability, description="Asks the client's model")

    @server.tool(description="test_tool_with_progress")
    async def test_tool_with_progress(call: Call) -> str:
        for done in (0, 50, 100):
            await call.report_progress(done, 100)
            await anyio.sleep(0.05)
        return "done"

    @server.tool(description="test_elicitation")
    async def test_elicitation(message: str, call: Call) -> str:
        names = ("username", "email")
        schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
        got = await call.session.elicit_form(message, schema, call.request_id)
        return f"User response: {got.model_dump_json()}"

    @server.tool(description="test_elicitation_sep1034_defaults")
    async def test_elicitation_sep1034_defaults(call: Call) -> str:
        properties = {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        }
        schema = {"type": "object", "properties": properties}
        got = await call.session.elicit_form("Please review", schema, call.request_id)
        return f"Elicitation completed: {got.model_dump_json()}"

    rounds: dict[str, dict[str, Any]] = {
        "test_input_required_result_elicitation": {"user_name": question("What is your name?", "name")},
        "test_input_required_result_sampling": {"capital_question": sample("What is the capital of France?")},
        "test_input_required_result_list_roots": {"client_roots": ListRootsRequest()},
        "test_input_required_result_request_state": {"confirm": question("Please confirm", "ok", "boolean")},
        "test_input_required_result_tampered_state": {"confirm": question("Please confirm", "ok", "boolean")},
        "test_input_required_result_multiple_inputs": {
            "user_name": question("What is your name?", "name"),
            "greeting": sample("Generate a greeting", 50),
            "client_roots": ListRootsRequest(),
        },
        "test_input_required_result_capabilities": {"greeting": sample("Generate a greeting", 50)},
    }
    for name, asked in rounds.items():
        server.add_tool(_asking(asked), name=name, description=name, structured_output=False)

    @server.tool(description="Two rounds", structured_output=False)
    async def test_input_required_result_multi_round(call: Call) -> str | InputRequiredResult:
        had = call.input_responses or {}
        if "step2" in had:
            return f"done: {call.request_state}"
        step = ("step2", question("Step 2: What is your favorite color?", "color"), "two")
        if "step1" not in had:
            step = ("step1", question("Step 1: What is your name?", "name"), "one")
        return InputRequiredResult(input_requests={step[0]: step[1]}, request_state=step[2])

    @server.prompt(description="test_input_required_result_prompt")
    async def test_input_required_result_prompt(call: Call) -> Any:
        if "user_context" in (call.input_responses or {}):
            return "Prompt with context"
        wanted = {"user_context": question("What context should the prompt use?", "context")}
        return InputRequiredResult(input_requests=wanted)


def _asking(asked: dict[str, Any]) -> Callable[..., Any]:
    """A tool that asks for all of this in its first round."""

    async def tool(call: Call) -> str | InputRequiredResult:
        if set(asked) <= set(call.input_responses or {}):
            return f"state-ok {call.request_state} {call.input_responses}"
        return InputRequiredResult(input_requests=asked, request_state="round-1")

    return tool


def rest(server: Server) -> None:
    """What no tool of ours does, so that the suite finds nothing that our server object would be in the way of."""

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=[name for name in ("test", "park") if name.startswith(argument.value)])

    async def noted(call: Any, params: Any) -> EmptyResult:
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, noted)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, noted)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, noted)

    @server.tool(description="test_tool_with_logging")
    async def test_tool_with_logging(call: Call) -> str:
        for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await call.session.send_log_message("info", said, related_request_id=call.request_id)
            await anyio.sleep(0.05)
        return "done"

    @server.tool(description="test_sampling")
    async def test_sampling(prompt: str, call: Call) -> str:
        message = SamplingMessage(role="user", content=words(prompt))
        got = await call.session.create_message([message], max_tokens=100, related_request_id=call.request_id)
        return f"LLM response: {got.content}"

    @server.tool(description="test_reconnection")
    async def test_reconnection(call: Call) -> str:
        await call.close_sse_stream()
        await anyio.sleep(0.1)
        return "back again"

    @server.tool(description="test_elicitation_sep1330_enums")
    async def test_elicitation_sep1330_enums(call: Call) -> str:
        got = await call.session.elicit_form(
            "Please choose", {"type": "object", "properties": CHOICES}, call.request_id
        )
        return f"Elicitation completed: {got.model_dump_json()}"

    @server.tool(description="An argument that travels as a header too")
    def test_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region

    def json_schema_2020_12_tool(name: str = "") -> str:
        return name

    tool = Tool.from_function(json_schema_2020_12_tool, description="A schema with the whole vocabulary")
    tool.parameters = SCHEMA_2020_12
    server._tool_manager._tools[tool.name] = tool


class Events(EventStore):
    """What was sent on every stream, so that one that broke off can be taken up again."""

    def __init__(self) -> None:
        self._sent: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self._sent.append((stream_id, message))
        return str(len(self._sent))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        seen = int(last_event_id)
        stream = self._sent[seen - 1][0]
        for number, (other, message) in enumerate(self._sent[seen:], seen + 1):
            if other == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = build(Context({"HOME": folder, "PATH": os.environ["PATH"], "PARHELIA_HOME": f"{folder}/state"}, home))
        contents(server)
        questions(server)
        rest(server)
        server.run(transport="streamable-http", host="127.0.0.1", port=port, event_store=Events(), retry_interval=100)


if __name__ == "__main__":
    main(int(sys.argv[1]))
