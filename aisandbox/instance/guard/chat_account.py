"""The account that people chat with, brought in line with the choice before every start of Open WebUI.

Everybody shares one account, and it keeps the history: without a password the gateway signs every visitor in to it;
with one, people do so themselves. So a change of mode, address or password changes this account, and ends its sessions.
What strangers have set, while anybody could come, is undone once that is over; their chats stay.

Run by Open WebUI's own Python in its own environment, as its own user: nothing else of ours is imported here.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

RESERVED = "@aisandbox.invalid"
"""Ending of our own accounts' addresses, which people cannot choose."""
VISITOR = f"visitor{RESERVED}"
"""Address of the account while the gateway signs people in."""
NAME = "Visitor"
"""Its name, as the gateway gives it."""
OPENED = "open-to-everyone"
"""File in the data directory: since the last start with guards, there was one without."""


@dataclass(frozen=True)
class Login:
    """What people sign in with."""

    email: str
    password: str


PERSONAL = (
    *("settings", "variables", "info", "username", "bio", "gender", "date_of_birth", "timezone"),
    *("profile_banner_image_url", "presence_state", "status_emoji", "status_message", "status_expires_at"),
)
"""Columns of an account that its user fills."""
PROMPTS = ("params", "system")
"""What a chat tells the model ahead of its messages, and how to answer them."""


def login(environment: Mapping[str, str]) -> Login | None:
    """The login asked for; None while the chat page is open.

    Raises:
        ValueError: the address is one of our own accounts'.
    """
    password = environment.get("AISANDBOX_CHAT_PASSWORD", "")
    if not password:
        return None
    email = environment["AISANDBOX_CHAT_EMAIL"].lower()
    if email.endswith(RESERVED):
        raise ValueError(f"chat_email {email} is reserved. Command: sudo aisandbox configure --set chat_email=ADDRESS")
    return Login(email, password)


def settled(database: Path, wanted: Login | None) -> bool:
    """Whether nothing is to be done. Takes milliseconds, where Open WebUI's own code takes seconds to import."""
    account = _account(database)
    if wanted is None:
        # Without an account, the first visitor makes it.
        return account is None or account[0] == VISITOR
    return account is not None and account[0] == wanted.email and _matches(wanted.password, account[1])


async def settle(wanted: Login | None) -> None:
    """Give the account its address and password, by Open WebUI's own code; make it when there is none."""
    accounts: Any = import_module("open_webui.models.auths").Auths
    auth: Any = import_module("open_webui.utils.auth")
    # As Open WebUI would itself, had it no account yet; the shared one is never the administrator's.
    names = ("WEBUI_ADMIN_EMAIL", "WEBUI_ADMIN_PASSWORD", "WEBUI_ADMIN_NAME")
    await auth.create_admin_user(*(os.environ[name] for name in names))
    account = await _shared()
    if account is None and wanted:
        name = wanted.email.partition("@")[0]
        await accounts.insert_new_auth(wanted.email, await auth.get_password_hash(wanted.password), name, role="user")
    elif account:
        await accounts.update_email_by_id(account.id, wanted.email if wanted else VISITOR)
        # Also ends its sessions: who chatted without a password must sign in. An open page's password is nobody's.
        password = wanted.password if wanted else os.urandom(32).hex()
        await accounts.update_user_password_by_id(account.id, await auth.get_password_hash(password))


async def undo() -> str:
    """Take back what strangers have set for everybody, and say what. Chats stay.

    Open WebUI's own functions merge settings and clear none, therefore by its tables.
    """
    account = await _shared()
    if account is None:
        return "nobody had used it"
    select: Any = import_module("sqlalchemy").select
    users, chats, folders = (import_module(f"open_webui.models.{name}") for name in ("users", "chats", "folders"))
    memories: Any = import_module("open_webui.models.memories").Memories
    await memories.delete_memories_by_user_id(account.id)
    changed = {"chats": 0, "folders": 0}
    async with import_module("open_webui.internal.db").get_async_db_context() as session:
        user = await session.get(users.User, account.id)
        for column in PERSONAL:
            setattr(user, column, None)
        user.name, user.profile_image_url = NAME, "/user.png"
        # One after the other: chats hold pictures.
        for key in (await session.scalars(select(chats.Chat.id).where(chats.Chat.user_id == account.id))).all():
            chat = await session.get(chats.Chat, key)
            if chat.variables or any(chat.chat.get(name) for name in PROMPTS):
                changed["chats"] += 1
                chat.variables = None
                chat.chat = {name: value for name, value in chat.chat.items() if name not in PROMPTS}
                await session.flush()
            session.expunge(chat)
        for folder in await session.scalars(select(folders.Folder).where(folders.Folder.user_id == account.id)):
            if (folder.data or {}).get("system_prompt"):
                changed["folders"] += 1
                folder.data = {name: value for name, value in folder.data.items() if name != "system_prompt"}
        await session.commit()
    prompts = f"the prompts and parameters of {changed['chats']} chats and {changed['folders']} folders"
    return f"removed the settings and memories of its account, and {prompts}; the chats are kept"


async def _shared() -> Any:
    """The shared account as Open WebUI has it; None before the first visitor."""
    users: Any = import_module("open_webui.models.users").Users
    plain = [user for user in (await users.get_users())["users"] if user.role == "user"]
    return min(plain, key=lambda user: user.created_at, default=None)


def _account(database: Path) -> tuple[str, str] | None:
    """Address and password hash of the shared account, the eldest that is no administrator's."""
    if not database.exists():
        return None
    query = "SELECT auth.email, password FROM auth JOIN user USING (id) WHERE role = 'user' ORDER BY created_at LIMIT 1"
    connection = sqlite3.connect(database)
    try:
        row: tuple[str, str] | None = connection.execute(query).fetchone()
    except sqlite3.OperationalError:
        return None  # no tables yet
    finally:
        connection.close()
    return row


def _matches(password: str, hashed: str) -> bool:
    bcrypt: Any = import_module("bcrypt")
    return bool(bcrypt.checkpw(password.encode(), hashed.encode()))


async def prepare(wanted: Login | None, settled: bool, closing: bool) -> None:
    """Bring the account in line, and say what was done."""
    os.environ["FROM_INIT_PY"] = "true"  # as `open-webui serve` does: it is installed, not a checkout
    # Importing its settings brings the database up to date. Not by name: the type checker runs without Open WebUI.
    import_module("open_webui.config")
    if not settled:
        await settle(wanted)
        how = "with a login" if wanted else "without a login"
        print(f"The chat page is now used {how}; its history is kept.", file=sys.stderr)
    if closing:
        print(f"The chat page is no longer open to everyone: {await undo()}.", file=sys.stderr)


def main() -> None:
    try:
        wanted = login(os.environ)
    except ValueError as error:
        sys.exit(str(error))
    data = Path(os.environ["DATA_DIR"])
    opened = data / OPENED
    is_open = os.environ.get("AISANDBOX_CHAT_OPEN") == "True"
    done, closing = settled(data / "webui.db", wanted), opened.exists() and not is_open
    if not done or closing:
        asyncio.run(prepare(wanted, done, closing))
    # Only now: whoever is stopped half-way begins again.
    if is_open:
        data.mkdir(parents=True, exist_ok=True)
        opened.touch()
    else:
        opened.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
