"""Lessons on tools: which one answers a request, with which arguments, and an answer from what it returned."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aisandbox.guide.wording import WORKSPACE, phrases
from aisandbox.teaching.conversations import Conversation

WORDS = phrases("words")
LETTERS = "abcdefhiklmnoprstuvwxyz"
SHOWN_LINES = 8
"""Of a tool's result in the answer."""
FAILED = 0.08
"""Share of the commands that fail."""


def described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool of the corpus in the form of the chat API."""
    properties = {name.rstrip("?"): {"type": "string"} for name in tool["parameters"]}
    required = [name for name in tool["parameters"] if not name.endswith("?")]
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": tool["name"], "description": tool["description"], "parameters": parameters}
    return {"type": "function", "function": function}


def offered(tools: Sequence[dict[str, Any]], rng: random.Random, needed: str | None = None) -> list[dict[str, Any]]:
    """All tools, as the chat page offers them, or some of them in any order."""
    if rng.random() < 0.35:
        return list(tools)
    some = rng.sample(list(tools), rng.randint(1, 5))
    if needed and needed not in {tool["function"]["name"] for tool in some}:
        some.append(next(tool for tool in tools if tool["function"]["name"] == needed))
    rng.shuffle(some)
    return some


class ToolTeacher:
    """Makes conversations with a call, with names and contents that occur nowhere else: they must be copied."""

    def __init__(self, known: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]], rng: random.Random) -> None:
        self.known, self.tools, self.rng = known, tools, rng
        self._in_conversation = False

    def exchange(self) -> list[dict[str, Any]]:
        """A request, the call that answers it, what that returned and what is said of it: a part of a conversation."""
        self._in_conversation = True
        try:
            made = self.commands(1) if self.rng.random() < 0.45 else self.others(1)
            return list(next(made).messages)
        finally:
            self._in_conversation = False

    def commands(self, count: int) -> Iterator[Conversation]:
        """Requests whose command must be known."""
        pairs = [(request, command) for command in self.known for request in command["requests"]]
        for request, command in self.rng.sample(pairs, min(count, len(pairs))):
            yield self._command(self._varied(request), command["command"], self.rng.choice(command["outputs"]))

    def made_up(self, count: int) -> Iterator[Conversation]:
        """Requests that name their command, which nobody has seen: it must be copied."""
        for _ in range(count):
            command = self._any_command()
            request = self.rng.choice(phrases("named")).format(command)
            yield self._command(request, command, "\n".join(self._sentences(2)) + "\n")

    def others(self, count: int) -> Iterator[Conversation]:
        """The other tools."""
        makers: list[Callable[[], Conversation]] = [
            self._read, self._read, self._read, self._list, self._list, self._write, self._write, self._program,
            self._code, self._code, self._page, self._page, self._search, self._search, self._glob, self._replace,
            self._display, self._screenshot,
        ]  # fmt: skip
        for number in range(count):
            yield (self.rng.choice(makers) if self._in_conversation else makers[number % len(makers)])()

    def _command(self, request: str, command: str, output: str) -> Conversation:
        result: dict[str, Any] = {"status": "completed", "exit_code": 0, "stdout": output, "stderr": ""}
        if self.rng.random() < FAILED:
            error = self.rng.choice(phrases("errors")).format(name=command.split()[0], file=self._file())
            result |= {"exit_code": self.rng.choice((1, 2, 127)), "stdout": "", "stderr": error + "\n"}
        return self._called(request, "run_command", {"command": command}, result, _said_of_command(result))

    def _any_command(self) -> str:
        rng = self.rng
        program = rng.choice(phrases("programs"))
        flags = [
            f"-{''.join(rng.sample('abcdefhiklmnoprstuvwxyz', rng.randint(1, 3)))}"
            for _ in range(rng.choice((0, 1, 1, 2)))
        ]
        arguments = [self._file() for _ in range(rng.choice((0, 1, 1, 2)))]
        command = " ".join([program, *flags, *arguments])
        return f"{command} | {rng.choice(phrases('pipes'))}" if rng.random() < 0.2 else command

    def _read(self) -> Conversation:
        path, lines = self._file(), self._sentences(4)
        content = "\n".join(lines) + "\n"
        result = {"path": f"{WORKSPACE}/{path}", "total_lines": len(lines), "content": content}
        request = self._varied(self.rng.choice(phrases("read")).format(path))
        return self._called(request, "read_file", {"path": path}, result, f"{path} says:\n\n{_shown(content)}")

    def _list(self) -> Conversation:
        names = [(self._file(), "file") for _ in range(self.rng.randint(1, 4))]
        if self.rng.random() < 0.5:
            names.append((self.rng.choice(WORDS), "directory"))
        folder = self.rng.choice((".", ".", self.rng.choice(WORDS)))
        entries = [
            {"name": name, "type": kind, "size": self.rng.randint(1, 90000), "modified": "2026-05-04T09:12:00Z"}
            for name, kind in names
        ]
        shown = WORKSPACE if folder == "." else f"{WORKSPACE}/{folder}"
        result = {"dir": shown, "writable": True, "entries": entries, "truncated": False}
        asked = self.rng.choice(phrases("list_here") if folder == "." else phrases("list"))
        listed = "\n".join(f"- {name}/" if kind == "directory" else f"- {name}" for name, kind in names)
        request = self._varied(asked.format(folder))
        return self._called(request, "list_files", {"directory": folder}, result, f"The folder holds:\n{listed}")

    def _write(self) -> Conversation:
        """Text as it was given, and lists with one thing a line."""
        path, rng = self._file(), self.rng
        if rng.random() < 0.35:
            things = rng.sample(WORDS, rng.randint(2, 4))
            content = "\n".join(things) + "\n"
            request = rng.choice(phrases("write_list")).format(
                path=path, list=f"{', '.join(things[:-1])} and {things[-1]}"
            )
        else:
            content = rng.choice((self._sentence(), f"{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.randint(0, 9)}"))
            request = rng.choice(phrases("write")).format(path=path, text=content)
        return self._written(request, path, content)

    def _program(self) -> Conversation:
        """Short programs, named by what they do."""
        stem, text = self.rng.choice(WORDS), self.rng.choice((self._sentence(), self.rng.choice(WORDS)))
        ending, content, kind = self.rng.choice(
            [
                ("py", f"print({text!r})\n", "python file"),
                ("sh", f"#!/bin/sh\necho '{text}'\n", "shell script"),
                ("js", f"console.log({json.dumps(text)});\n", "javascript file"),
            ]
        )
        path = f"{stem}.{ending}"
        request = self.rng.choice(phrases("program")).format(kind=kind, path=path, text=text)
        return self._written(request, path, content)

    def _written(self, request: str, path: str, content: str) -> Conversation:
        result = {"path": f"{WORKSPACE}/{path}", "size": len(content)}
        answer = f"I have written {path}: {len(content)} bytes."
        return self._called(request, "write_file", {"path": path, "content": content}, result, answer)

    def _code(self) -> Conversation:
        a, b = self.rng.randint(2, 999), self.rng.randint(2, 99)
        expression, value = self.rng.choice(
            [
                (f"{a} + {b}", a + b),
                (f"{a} * {b}", a * b),
                (f"{a} - {b}", a - b),
                (f"sum(range({b}))", sum(range(b))),
                (f"len('{'x' * (b % 20)}')", b % 20),
                (f"max([{a}, {b}])", max(a, b)),
            ]
        )
        result = {"status": "completed", "stdout": f"{value}\n", "stderr": "", "values": []}
        code, form = f"print({expression})", self.rng.choice(phrases("code"))
        request = form.format(expression=expression, code=code)
        return self._called(request, "run_code", {"code": code}, result, f"The code printed {value}.")

    def _page(self) -> Conversation:
        rng = self.rng
        url = f"https://{rng.choice(('', 'www.', 'docs.'))}{rng.choice(WORDS)}.{rng.choice(phrases('domains'))}"
        url += rng.choice(("", f"/{rng.choice(WORDS)}", f"/{rng.choice(WORDS)}/{rng.choice(WORDS)}"))
        title, first = self._sentence(), self._sentence()
        result = {"url": url, "title": title, "content": f"# {title}\n\n{first}\n"}
        request = rng.choice(phrases("pages")).format(url)
        return self._called(
            request, "open_page", {"url": url}, result, f"The page is called {title!r}. It says: {first}"
        )

    def _search(self) -> Conversation:
        word = self.rng.choice((*WORDS, "TODO", "FIXME", "import", "password", "def main", "http"))
        found = [
            (self._file(), self.rng.randint(1, 300), f"{word} {self._sentence()}")
            for _ in range(self.rng.randint(1, 3))
        ]
        matches = [{"file": f"{WORKSPACE}/{file}", "line": line, "text": text} for file, line, text in found]
        result = {"matches": matches, "truncated": False}
        places = [f"- {file}, line {line}: {text}" for file, line, text in found]
        answer = "\n".join([f"{word} stands in:", *places])
        request = self._varied(self.rng.choice(phrases("search")).format(word))
        return self._called(request, "grep_search", {"query": word}, result, answer)

    def _glob(self) -> Conversation:
        kind, pattern = self.rng.choice(phrases("kinds"))
        names = [f"{self.rng.choice(WORDS)}{pattern.removeprefix('*')}" for _ in range(self.rng.randint(1, 3))]
        result = {"matches": [{"path": f"{WORKSPACE}/{name}"} for name in names], "truncated": False}
        request = self.rng.choice(phrases("glob")).format(kind)
        answer = "Found:\n" + "\n".join(f"- {name}" for name in names)
        return self._called(request, "glob_search", {"pattern": pattern}, result, answer)

    def _replace(self) -> Conversation:
        path, (old, new) = self._file(), self.rng.sample(WORDS, 2)
        result = {"path": f"{WORKSPACE}/{path}", "replaced": self.rng.randint(1, 5)}
        request = self.rng.choice(phrases("replace")).format(old=old, new=new, path=path)
        arguments = {"path": path, "target": old, "replacement": new}
        answer = f"I have replaced {old} by {new} in {path}, {result['replaced']} times."
        return self._called(request, "replace_file_content", arguments, result, answer)

    def _display(self) -> Conversation:
        path = f"{self.rng.choice(WORDS)}.{self.rng.choice(('png', 'jpg', 'pdf', 'svg'))}"
        result = {"path": f"{WORKSPACE}/{path}", "exists": True}
        request = self.rng.choice(phrases("display")).format(path)
        return self._called(request, "display_file", {"path": path}, result, f"{path} is shown in the file viewer.")

    def _screenshot(self) -> Conversation:
        path = f"{WORKSPACE}/screenshots/{self.rng.randint(1, 99)}.png"
        request = self.rng.choice(phrases("screenshot"))
        return self._called(request, "screenshot_page", {}, {"path": path}, f"The picture is in {path}.")

    def _called(
        self, request: str, tool: str, arguments: Mapping[str, Any], result: Mapping[str, Any], answer: str
    ) -> Conversation:
        call = {"type": "function", "function": {"name": tool, "arguments": dict(arguments)}}
        system = [{"role": "system", "content": self.rng.choice(phrases("systems")).format(workspace=WORKSPACE)}]
        messages = [
            *(system if not self._in_conversation and self.rng.random() < 0.4 else []),
            {"role": "user", "content": request},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        # What to say of a result is learned sooner than which call to make.
        if self._in_conversation or self.rng.random() < 0.5:
            messages += [{"role": "tool", "content": json.dumps(result)}, {"role": "assistant", "content": answer}]
        return Conversation(messages, offered(self.tools, self.rng, tool))

    def _varied(self, request: str) -> str:
        if self.rng.random() < 0.3:
            request = request[:1].lower() + request[1:]
        return request.rstrip("?.! ") if self.rng.random() < 0.3 else request

    def _file(self) -> str:
        folder = f"{self.rng.choice(WORDS)}/" if self.rng.random() < 0.15 else ""
        stem = self.rng.choice(WORDS)
        if self.rng.random() < 0.3:
            stem += self.rng.choice(("-", "_", "")) + self.rng.choice(
                (self.rng.choice(WORDS), str(self.rng.randint(1, 30)))
            )
        return f"{folder}{stem}.{self.rng.choice(phrases('endings'))}"

    def _sentences(self, most: int) -> list[str]:
        return [self._sentence() for _ in range(self.rng.randint(1, most))]

    def _sentence(self) -> str:
        rng = self.rng
        subject, verb = rng.choice(phrases("subjects")), rng.choice(phrases("verbs"))
        return f"{subject} {verb} {rng.randint(2, 99)} {rng.choice(WORDS)}s"


def _shown(text: str) -> str:
    lines = text.strip("\n").splitlines()
    more = f"\n... and {len(lines) - SHOWN_LINES} more lines" if len(lines) > SHOWN_LINES else ""
    return "```\n" + "\n".join(lines[:SHOWN_LINES]) + more + "\n```"


def _said_of_command(result: Mapping[str, Any]) -> str:
    if result["exit_code"]:
        return f"It failed with exit code {result['exit_code']}: {result['stderr'].strip()}"
    return f"It printed:\n\n{_shown(result['stdout'])}" if result["stdout"].strip() else "Done. It printed nothing."
