"""What a chat page needs of the sandbox: Open WebUI's "terminal server" protocol, over the same services.

Open WebUI asks for tools (an OpenAPI document), and offers people a file browser and a terminal. Its protocol has plain
answers, so these routes answer without the envelope when they succeed; errors have the one form.
Source of the protocol: the requests of Open WebUI 0.12 (`routers/terminals.py`, its pages), open-terminal 0.14's API.
"""
