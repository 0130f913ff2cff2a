"""Accounts, passwords and rights."""

from __future__ import annotations

from collections.abc import Iterator

from aisandbox.check.model import Finding, Subject, check, entries

LOCKED = ("!", "*")
"""What a password field begins with when no password opens the account."""
PEOPLE = range(1000, 65534)
NO_LOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false", "/bin/sync", "/usr/bin/sync")


@check(
    "Root has no password",
    why="Everybody who deploys the image would share it; AWS, DigitalOcean and Azure refuse default credentials.",
    fix="passwd --lock root",
    sources=("DigitalOcean 13", "AWS", "Azure"),
)
def root_password(subject: Subject) -> Iterator[Finding]:
    for account in subject.accounts:
        if account.name == "root" and not (account.shadow or "").startswith(LOCKED):
            yield Finding("/etc/shadow", "root's password is not locked")


@check(
    "No account has a password",
    why="Everybody who deploys the image would share it. DigitalOcean's own script forgets what it counts here.",
    fix="passwd --lock NAME, or delete the account",
    sources=("DigitalOcean 10", "AWS", "Azure"),
)
def user_passwords(subject: Subject) -> Iterator[Finding]:
    for account in subject.accounts:
        if account.name != "root" and account.shadow is not None and not account.shadow.startswith(LOCKED):
            yield Finding("/etc/shadow", f"{account.name} has a password, or an empty one")
    for row in subject.rows("/etc/gshadow", 2):
        if row[1] and not row[1].startswith(LOCKED):
            yield Finding("/etc/gshadow", f"the group {row[0]} has a password")


@check(
    "Every account's password is in /etc/shadow, and none is empty",
    why="An empty field lets anybody in; one in /etc/passwd can be read, and guessed, by everybody.",
    fix="pwconv; passwd --lock NAME",
    sources=("AWS",),
    stages=("image", "instance"),
)
def empty_passwords(subject: Subject) -> Iterator[Finding]:
    if not subject.accounts:
        yield Finding("/etc/passwd", "cannot be read, or names nobody")
    for account in subject.accounts:
        if account.field != "x" and not account.field.startswith(LOCKED):
            yield Finding("/etc/passwd", f"{account.name}: the password field is not x")
        elif account.shadow == "":
            yield Finding("/etc/shadow", f"{account.name} has an empty password")


@check(
    "Only root is root",
    why="A second account with the number 0 is a hidden way in.",
    fix="delete the account",
    sources=("AWS",),
    stages=("image", "instance"),
)
def root_accounts(subject: Subject) -> Iterator[Finding]:
    for account in subject.accounts:
        if account.uid == 0 and account.name != "root":
            yield Finding("/etc/passwd", f"{account.name} has the number 0")


@check(
    "No account of a person, and no home",
    why="cloud-init makes the deployer's account; one of the builder would be a way in that nobody knows of.",
    fix="userdel --force --remove NAME",
    sources=("Google 104", "AWS"),
)
def leftover_users(subject: Subject) -> Iterator[Finding]:
    for account in subject.accounts:
        if account.uid in PEOPLE:
            yield Finding("/etc/passwd", f"{account.name} has the number {account.uid}")
    yield from entries(subject.tree.glob("/home/*"), "left in /home")


@check(
    "Accounts of services have no login shell",
    why="Nobody logs in as a service; a shell makes a stolen key or password worth something.",
    fix="usermod --shell /usr/sbin/nologin NAME",
    sources=("dev-sec",),
    stages=("image", "instance"),
)
def login_shells(subject: Subject) -> Iterator[Finding]:
    for account in subject.accounts:
        if 0 < account.uid < PEOPLE.start and account.shell not in NO_LOGIN:
            yield Finding("/etc/passwd", f"{account.name} has the shell {account.shell or '(default)'}")


@check(
    "No rights of a builder's account",
    why="cloud-init writes the deployer's; what is there already belongs to somebody who is gone.",
    fix="rm the file in /etc/sudoers.d",
    sources=("Google 104", "AWS"),
)
def sudoers(subject: Subject) -> Iterator[Finding]:
    yield from entries(e for e in subject.tree.glob("/etc/sudoers.d/*") if not e.path.endswith("/README"))
    for line in subject.tree.lines("/etc/sudoers"):
        if "NOPASSWD" in line:
            yield Finding("/etc/sudoers", "NOPASSWD for " + line.split()[0])


@check(
    "No copies of the account files",
    why="passwd- and shadow- hold the accounts and passwords as they were before the last change.",
    fix="rm /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow-",
    sources=("stricter than the vendors",),
)
def account_backups(subject: Subject) -> Iterator[Finding]:
    names = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
    yield from entries(subject.tree.glob(*(f"/etc/{name}-" for name in names)))
