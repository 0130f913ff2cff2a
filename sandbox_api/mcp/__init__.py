"""The capabilities as tools, for MCP clients and by REST."""
