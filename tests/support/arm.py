"""As much of Azure Resource Manager as our template uses: parameters are checked, then expressions evaluated."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)|'(?P<text>(?:[^']|'')*)'|(?P<number>\d+)|(?P<sign>[(),.]))")


class RefusedError(Exception):
    """A parameter breaks its rules."""


class Deployment:
    """A template with the values of its parameters."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        self._variables = template["variables"]
        self._parameters: dict[str, Any] = {}
        for name, rules in template["parameters"].items():
            if name not in parameters and "defaultValue" not in rules:
                raise RefusedError(f"{name} is required")
            value = parameters.get(name, rules.get("defaultValue"))
            if "allowedValues" in rules and value not in rules["allowedValues"]:
                raise RefusedError(f"{name}: none of {rules['allowedValues']}")
            self._parameters[name] = value

    def evaluated(self, value: Any) -> Any:
        """The value with every expression carried out."""
        if isinstance(value, dict):
            return {key: self.evaluated(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.evaluated(entry) for entry in value]
        if isinstance(value, str) and value.startswith("[") and value.endswith("]") and not value.startswith("[["):
            tokens = list(TOKEN.finditer(value[1:-1]))
            assert "".join(match[0] for match in tokens) == value[1:-1], f"not understood: {value}"
            result = self._expression(tokens)
            assert not tokens, f"not understood: {value}"
            return result
        return value

    def _expression(self, tokens: list[re.Match[str]]) -> Any:
        token = tokens.pop(0)
        if token["text"] is not None:
            return token["text"].replace("''", "'")
        if token["number"]:
            return int(token["number"])
        arguments: list[Any] = []
        assert tokens.pop(0)["sign"] == "("
        while tokens[0]["sign"] != ")":
            arguments.append(self._expression(tokens))
            if tokens[0]["sign"] == ",":
                tokens.pop(0)
        tokens.pop(0)
        result = self._call(token["name"], arguments)
        while tokens and tokens[0]["sign"] == ".":
            tokens.pop(0)
            result = f"<{result}.{tokens.pop(0)['name']}>"
        return result

    def _call(self, name: str, arguments: list[Any]) -> Any:
        match name:
            case "parameters":
                return self.evaluated_parameter(arguments[0])
            case "variables":
                return self.evaluated(self._variables[arguments[0]])
            case "concat":
                return "".join(arguments)
            case "string":
                return json.dumps(arguments[0], ensure_ascii=False, separators=(",", ":"))
            case "base64":
                return base64.b64encode(arguments[0].encode()).decode()
            case "createObject":
                return dict(zip(arguments[::2], arguments[1::2], strict=True))
            case "equals":
                return arguments[0] == arguments[1]
            case "empty":
                return not arguments[0]
            case "not":
                return not arguments[0]
            case "if":
                return arguments[1] if arguments[0] else arguments[2]
            case "format":
                return arguments[0].format(*arguments[1:])
        return f"<{name}>"

    def evaluated_parameter(self, name: str) -> Any:
        """A parameter. Only its default may be an expression: what somebody gives is text."""
        return self._parameters[name]
