"""The tools that the sandbox offers, in the order in which clients see them."""

from __future__ import annotations

from sandbox_api.browser.service import BrowserService
from sandbox_api.code.service import CodeService
from sandbox_api.desktop.service import DesktopService
from sandbox_api.file.service import FileService
from sandbox_api.health import Capabilities
from sandbox_api.mcp.registry import Registry, Tool
from sandbox_api.mcp.tools.browser import BrowserTools
from sandbox_api.mcp.tools.commands import CommandTools
from sandbox_api.mcp.tools.files import FileTools
from sandbox_api.mcp.tools.whole import WholeTools
from sandbox_api.settings import Settings
from sandbox_api.shell.service import ShellService


def registry(
    settings: Settings,
    shell: ShellService,
    file: FileService,
    code: CodeService,
    browser: BrowserService,
    desktop: DesktopService,
    capabilities: Capabilities,
) -> Registry:
    workspace, most = str(settings.workspace_path), settings.answer_output_chars
    commands, files = CommandTools(shell, code, most), FileTools(file, workspace)
    pages, whole = BrowserTools(browser, most), WholeTools(desktop, capabilities, workspace)
    return Registry(
        [
            Tool(commands.run_command, "Run a command", destroys=True, world=True),
            Tool(commands.command_output, "Read a command's output", reads=True),
            Tool(commands.stop_command, "Stop a command", destroys=True, repeats=True),
            Tool(commands.run_code, "Run Python or JavaScript", destroys=True, world=True),
            Tool(files.read_file, "Read a file", reads=True),
            Tool(files.write_file, "Write a file", destroys=True),
            Tool(files.edit_file, "Replace text in a file", destroys=True),
            Tool(files.list_files, "List a folder", reads=True),
            Tool(files.search_files, "Search in files", reads=True),
            Tool(files.find_files, "Find files by name", reads=True),
            Tool(pages.browser_navigate, "Open an address", world=True),
            Tool(pages.browser_read, "Read the page", reads=True, world=True),
            Tool(pages.browser_elements, "List what can be used on the page", reads=True, world=True),
            Tool(pages.browser_click, "Click on the page", destroys=True, world=True),
            Tool(pages.browser_type, "Type into the page", destroys=True, world=True),
            Tool(pages.browser_screenshot, "Picture of the page", reads=True, world=True),
            Tool(pages.browser_evaluate, "Run JavaScript in the page", destroys=True, world=True),
            Tool(pages.browser_tabs, "Tabs of the browser", world=True),
            Tool(whole.desktop_screenshot, "Picture of the desktop", reads=True),
            Tool(whole.sandbox_info, "What the sandbox is", reads=True),
        ]
    )
