"""As much of CloudFormation as our template uses: parameters are checked, then functions and conditions evaluated."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any


class RefusedError(Exception):
    """A parameter breaks its rules."""


class Stack:
    """A template with the values of its parameters."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
        self._template = template
        self._values: dict[str, Any] = {"AWS::StackName": "stack"}
        unknown = parameters.keys() - template["Parameters"].keys()
        if unknown:
            raise RefusedError(f"unknown parameters: {unknown}")
        for name, rules in template["Parameters"].items():
            self._values[name] = self._checked(name, rules, parameters.get(name, rules.get("Default")))

    def _checked(self, name: str, rules: Mapping[str, Any], value: Any) -> Any:
        if value is None:
            raise RefusedError(f"{name} is required")
        if len(str(value).encode()) > 4096:
            raise RefusedError(f"{name} is longer than 4096 bytes")
        # Java's patterns are matched against the whole value.
        if "AllowedPattern" in rules and not re.fullmatch(rules["AllowedPattern"], str(value)):
            raise RefusedError(f"{name}: {rules['ConstraintDescription']}")
        if "AllowedValues" in rules and value not in rules["AllowedValues"]:
            raise RefusedError(f"{name}: none of {rules['AllowedValues']}")
        return value

    def evaluated(self, value: Any) -> Any:
        """The value with every function carried out. Attributes of resources stay as words."""
        if isinstance(value, list):
            return [self.evaluated(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            match function:
                case "Ref":
                    return self._values.get(argument, f"<{argument}>")
                case "Fn::Sub":
                    # Once over the text: what a value brings along is not looked at again.
                    return re.sub(r"\$\{([^!}]+)\}", lambda found: str(self._values.get(found[1], found[0])), argument)
                case "Fn::Base64":
                    return base64.b64encode(self.evaluated(argument).encode()).decode()
                case "Fn::GetAtt":
                    return f"<{'.'.join(argument)}>"
        return {key: self.evaluated(entry) for key, entry in value.items()}

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        ((function, argument),) = condition.items()
        if function == "Fn::Not":
            return not self._holds(argument[0])
        assert function == "Fn::Equals"
        one, other = (self.evaluated(side) for side in argument)
        return bool(one == other)

    def of_type(self, kind: str) -> list[str]:
        """Names of the resources of a kind that are made."""
        conditions = self._template["Conditions"]
        return [
            name
            for name, resource in self._template["Resources"].items()
            if resource["Type"] == kind
            and ("Condition" not in resource or self._holds(conditions[resource["Condition"]]))
        ]

    def resource(self, name: str) -> Any:
        """The properties of a resource."""
        return self.evaluated(self._template["Resources"][name]["Properties"])
