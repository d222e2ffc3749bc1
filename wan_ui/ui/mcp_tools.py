"""The six endpoints of jobs as tools of the Model Context Protocol, for assistants: WAN_UI_MCP=1.

Target: `GradioMCPServer` of gradio 6. Why: it makes a tool of every endpoint, `generate` too, which an assistant would
wait for for minutes, and which asks the page over the network, so that it looks like a person of this machine whoever
calls; and it answers with Python's text of a JSON value, which nobody can read. How: its list of tools and what it
makes of answers are ours. Remove when: both can be said to `launch`.
"""

import json
from importlib.util import find_spec
from typing import Any

import gradio as gr
from pydantic import RootModel

from wan_ui.errors import UserError

TOOLS = {name: f"/{name}" for name in ("submit", "after", "status", "cancel", "result", "list")}  # tool -> endpoint


def check_package() -> None:
    """Raises UserError."""
    if find_spec("mcp") is None:
        raise UserError("mcp: WAN_UI_MCP=1 needs the package mcp: pip install -r requirements-mcp.txt")


def offer(page: gr.Blocks) -> None:
    """Of a page that was launched with its MCP server. Raises UserError where that could not be started."""
    tools: Any = page.mcp_server_obj
    if tools is None:
        raise UserError(f"mcp: the tools cannot be offered ({page.mcp_error})")
    theirs = tools.postprocess_output_data

    def as_json(data: list[Any], root_url: str) -> list[Any]:
        return theirs([json.dumps(v.root) if isinstance(v, RootModel) else v for v in data], root_url)

    tools.tool_to_endpoint, tools.postprocess_output_data = TOOLS, as_json
