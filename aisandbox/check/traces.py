"""What tells of the builder, or must be unique to an instance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from aisandbox.check import keys
from aisandbox.check.model import Finding, Subject, check, entries

HISTORIES = (
    ".ash_history", ".bash_history", ".fish_history", ".history", ".ipython/*", ".lesshst",
    ".mysql_history", ".node_repl_history", ".psql_history", ".python_history", ".sh_history", ".sqlite_history",
    ".viminfo", ".wget-hsts", ".zsh_history", ".zhistory",
)  # fmt: skip
CACHES = (".ansible/*", ".cache/*", ".cargo/*", ".node-gyp/*", ".npm/*", ".nv/*", ".triton/*")
RECORDS = ("wtmp", "btmp", "lastlog", "faillog", "tallylog")
PROXY = re.compile(r"(?i)(_proxy\s*=|acquire::\w+::proxy)\s*\S")
OWN_SOURCE = re.compile(
    r"\b(file|copy|cdrom):|\[[^]]*trusted=yes|//(localhost|127\.|10\.|192\.168\.|[^/]*\.(local|lan|internal)\b)"
)
ROTATED = re.compile(r"-\d{8}(\.\w+)?$|\.\d+(\.\w+)?$|\.(gz|xz|bz2|zst|old)$")
LOOPBACK = re.compile(r"^(127\.|::1$|f[ef]0\d::)")
OWN_NAMES = re.compile(r"^(localhost\S*|ip6-\S+)$")
PROVISIONERS = (
    "ansible",
    "ansible-core",
    "chef",
    "chef-client",
    "cinc",
    "packer",
    "puppet",
    "puppet-agent",
    "salt-minion",
)


@check(
    "Root has no history of commands",
    why="Commands often hold passwords. Azure allows 1 KiB of them, DigitalOcean 200 bytes; this, none.",
    fix="rm /root/.bash_history",
    sources=("DigitalOcean 15", "Azure 1", "image-builder"),
)
def root_history(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob(*(f"/root/{name}" for name in HISTORIES)))


@check(
    "Nobody has a history of commands",
    why="Commands tell of the builder, and often hold passwords.",
    fix="rm HOME/.bash_history",
    sources=("DigitalOcean 12", "Azure 1", "image-builder"),
)
def user_history(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob(*(f"{home}/{name}" for home in subject.homes for name in HISTORIES)))


@check(
    "Root's home is as Debian made it",
    why="Whatever else is there is the builder's: Google's check knows two files by their checksums.",
    fix="rm it; cp /usr/share/base-files/dot.bashrc /root/.bashrc",
    sources=("Google 101",),
)
def root_home(subject: Subject) -> Iterator[Finding]:
    others = {name.split("/")[0] for name in (*HISTORIES, *CACHES, *keys.LOGINS, *keys.SSH_FOLDERS)}
    for entry in subject.tree.glob("/root/*"):
        name = entry.path.rpartition("/")[2]
        if name in others or keys.MOK.search(entry.path):
            continue  # has a check of its own
        packaged = {".bashrc": "dot.bashrc", ".profile": "dot.profile"}.get(name)
        if not packaged:
            yield Finding(entry.path)
        elif subject.tree.read(entry.path) != subject.tree.read(f"/usr/share/base-files/{packaged}"):
            yield Finding(entry.path, "differs from the package's")


@check(
    "Logs are empty",
    why="They tell of the builder's hosts, names and addresses; DigitalOcean warns above 50 bytes.",
    fix="journald to memory first, then rm -r /var/log/journal/*; truncate --size 0 the others",
    sources=("DigitalOcean 9", "Google 100", "image-builder"),
)
def logs(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.files("/var/log"):
        if entry.size and not ROTATED.search(entry.path) and entry.path.rpartition("/")[2] not in RECORDS:
            yield Finding(entry.path, f"{entry.size} bytes")


@check(
    "No old logs",
    why="Rotated logs are the builder's, whatever their size.",
    fix="rm /var/log/*.gz /var/log/*.1",
    sources=("DigitalOcean 7", "DigitalOcean 8"),
)
def rotated_logs(subject: Subject) -> Iterator[Finding]:
    yield from entries(e for e in subject.tree.files("/var/log") if ROTATED.search(e.path))


@check(
    "Nobody has logged in yet",
    why="Records of logins hold the builder's addresses.",
    fix="truncate --size 0 /var/log/wtmp /var/log/btmp /var/log/lastlog",
    sources=("image-builder", "droplet-1-clicks"),
)
def login_records(subject: Subject) -> Iterator[Finding]:
    yield from entries(e for e in subject.tree.glob(*(f"/var/log/{name}" for name in RECORDS)) if e.size)


@check(
    "The first boot makes the machine id",
    why="Instances with one id get each other's DHCP leases, and mix up their journals.",
    fix="truncate --size 0 /etc/machine-id; rm /var/lib/dbus/machine-id",
    sources=("image-builder", "Hetzner", "Vultr"),
)
def machine_id(subject: Subject) -> Iterator[Finding]:
    content = subject.tree.text("/etc/machine-id")
    if content is None:
        yield Finding("/etc/machine-id", "missing: systemd cannot keep the one that it makes")
    elif content.strip() not in ("", "uninitialized"):
        yield Finding("/etc/machine-id", "is set")
    second = subject.tree.entry("/var/lib/dbus/machine-id")
    if second and second.is_file and second.size:
        yield Finding(second.path, "is set")


@check(
    "No random seed",
    why="Instances must not begin with the same randomness.",
    fix="rm /var/lib/systemd/random-seed",
    sources=("image-builder", "Vultr"),
)
def random_seed(subject: Subject) -> Iterator[Finding]:
    yield from entries(
        subject.tree.glob(
            "/var/lib/systemd/random-seed",
            "/var/lib/systemd/credential.secret",
            "/var/lib/urandom/random-seed",
            "/boot/loader/random-seed",
            "/boot/efi/loader/random-seed",
        )
    )


@check(
    "cloud-init has not run yet",
    why="It would take the instance for the builder, and leave out keys, names and user-data; some of it is secret.",
    fix="cloud-init clean --logs --machine-id, or rm -r /var/lib/cloud/*",
    sources=("image-builder", "Google", "DigitalOcean cleanup"),
)
def cloud_init_state(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.glob("/var/lib/cloud/*"):
        name = entry.path.rpartition("/")[2]
        inside = [f"{entry.path}/{child}" for child in subject.tree.names(entry.path)]
        mounted = bool(inside) and all(subject.tree.is_outside(path) for path in inside)
        if name not in ("handlers", "scripts") and not mounted or (name == "handlers" and inside):
            yield Finding(entry.path)


@check(
    "No network settings of the builder",
    why="They name its network cards and addresses; an instance that obeys them has no network.",
    fix="rm /etc/netplan/50-cloud-init.yaml and the like",
    sources=("image-builder", "Hetzner"),
)
def network_state(subject: Subject) -> Iterator[Finding]:
    settings = (
        "/etc/netplan/*",
        "/etc/network/interfaces.d/*",
        "/etc/systemd/network/*-cloud-init*",
        "/etc/NetworkManager/system-connections/*",
        "/etc/udev/rules.d/70-persistent-net.rules",
        "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
        "/etc/sysconfig/network-scripts/ifcfg-e*",
    )
    yield from entries(entry for entry in subject.tree.glob(*settings) if entry.is_file)


@check(
    "No leases",
    why="They hold the builder's addresses, and an instance would ask for them.",
    fix="rm /var/lib/dhcp/* /var/lib/systemd/network/*",
    sources=("image-builder",),
)
def dhcp_leases(subject: Subject) -> Iterator[Finding]:
    places = ("/var/lib/dhcp/*", "/var/lib/dhcpcd/*", "/var/lib/NetworkManager/*", "/var/lib/systemd/network/*")
    yield from entries(e for e in subject.tree.glob(*places) if e.is_file and e.size)


@check(
    "The image has no name of a builder",
    why="Names are the deployer's to give; the builder's would turn up in every instance's logs.",
    fix="write the product's name to /etc/hostname; leave only localhost in /etc/hosts",
    sources=("image-builder", "Google 100"),
)
def host_name(subject: Subject) -> Iterator[Finding]:
    name = (subject.tree.text("/etc/hostname") or "").strip()
    if name not in ("", "localhost", subject.settings.hostname):
        yield Finding("/etc/hostname", f"is not {subject.settings.hostname}")
    for line in subject.tree.lines("/etc/hosts"):
        address, *names = line.split("#")[0].split()
        known = {subject.settings.hostname, *(name for name in names if OWN_NAMES.match(name))}
        if not LOOPBACK.match(address) or not known.issuperset(names):
            yield Finding("/etc/hosts", f"the line for {address}")


@check(
    "Names are not resolved by the builder's servers",
    why="An instance cannot reach them, or tells them what it looks up.",
    fix="ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    sources=("stricter than the vendors",),
)
def resolver(subject: Subject) -> Iterator[Finding]:
    entry = subject.tree.entry("/etc/resolv.conf")
    if entry and entry.is_file and any(line.startswith("nameserver") for line in subject.tree.lines(entry.path)):
        yield Finding(entry.path, "is a file that names servers")


@check(
    "Folders for temporary files are empty",
    why="What is there was the builder's, and can be a secret.",
    fix="rm -r /tmp/* /var/tmp/*",
    sources=("DigitalOcean cleanup", "image-builder"),
)
def temporary_files(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob("/tmp/*", "/var/tmp/*"))  # noqa: S108


@check(
    "No crash dumps",
    why="A dump holds all that a program had in memory.",
    fix="rm /var/crash/* /var/lib/systemd/coredump/*",
    sources=("image-builder",),
)
def crash_dumps(subject: Subject) -> Iterator[Finding]:
    places = ("/var/crash/*", "/var/lib/systemd/coredump/*", "/var/lib/systemd/pstore/*", "/var/lib/apport/coredump/*")
    yield from entries(subject.tree.glob(*places, "/core", "/core.*", "/vmcore*", "/var/core/*"))


@check(
    "No swap on the system disk",
    why="Azure forbids a swap partition, and a swap file is a copy of the builder's memory.",
    fix="swapoff -a; rm the file and its line in /etc/fstab",
    sources=("Azure 4", "image-builder"),
)
def swap(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob("/swapfile", "/swap.img", "/swap", "/var/swap", "/var/swapfile"))
    for line in subject.tree.lines("/etc/fstab"):
        if line.split()[2:3] == ["swap"]:
            yield Finding("/etc/fstab", "has swap")


@check(
    "Timers have not run yet",
    why="With the builder's times, all of them run at once in the middle of the first boot.",
    fix="rm /var/lib/systemd/timers/*",
    sources=("Hetzner",),
)
def timer_stamps(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob("/var/lib/systemd/timers/*"))


@check(
    "No cached packages and package lists",
    why="They are stale when the instance starts, and hundreds of megabytes.",
    fix="apt-get clean; rm -r /var/lib/apt/lists/*",
    sources=("Google 102", "image-builder"),
)
def package_caches(subject: Subject) -> Iterator[Finding]:
    places = ("/var/cache/apt/archives", "/var/lib/apt/lists", "/var/cache/yum", "/var/cache/dnf")
    for entry in (*subject.tree.files(*places), *subject.tree.glob("/var/cache/apt/*.bin")):
        if entry.size and not entry.path.endswith("/lock"):
            yield Finding(entry.path)


@check(
    "No caches of tools",
    why="pip, uv, npm, Hugging Face and others keep what the builder fetched, from where, and some logins.",
    fix="rm -r HOME/.cache",
    sources=("azhpc-images", "stricter than the vendors"),
)
def user_caches(subject: Subject) -> Iterator[Finding]:
    places = ("/var/cache/uv/*", "/var/cache/pip/*", "/var/lib/ansible/*")
    yield from entries(subject.tree.glob(*subject.in_homes(*CACHES), *places))


@check(
    "Tools of the bake are gone",
    why="They are not needed again, and grow old. Google purges its own.",
    fix="apt-get purge it; rm /usr/local/bin/uv /usr/sbin/policy-rc.d",
    sources=("Google 103",),
)
def provisioners(subject: Subject) -> Iterator[Finding]:
    for name in PROVISIONERS:
        if subject.installed(name):
            yield Finding("/var/lib/dpkg/status", f"the package {name} is installed")
    places = ("/usr/local/bin/uv", "/usr/local/bin/packer", "/usr/sbin/policy-rc.d", "/opt/chef", "/opt/puppetlabs")
    yield from entries(subject.tree.glob(*places, "/etc/chef", "/etc/puppet"))


@check(
    "No settings of the builder's network",
    why="Its proxies and mirrors do not exist for the instance, and a foreign authority can read its traffic.",
    fix="remove the setting",
    sources=("stricter than the vendors",),
)
def builder_settings(subject: Subject) -> Iterator[Finding]:
    places = ("/etc/environment", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/*", "/etc/profile.d/*", "/etc/wgetrc")
    for entry in subject.tree.glob(*places, "/etc/systemd/system.conf.d/*", "/etc/curlrc"):
        if any(PROXY.search(line) for line in subject.tree.lines(entry.path)):
            yield Finding(entry.path, "names a proxy")
    yield from entries(subject.tree.glob("/etc/pip.conf", "/etc/uv/*", "/etc/npmrc", "/usr/etc/npmrc"), "names sources")
    yield from entries(subject.tree.glob("/usr/local/share/ca-certificates/*"), "a further authority")
    for entry in subject.tree.glob("/etc/apt/sources.list", "/etc/apt/sources.list.d/*"):
        for line in subject.tree.lines(entry.path):
            if OWN_SOURCE.search(line):
                yield Finding(entry.path, "names a source that only the builder has")


@check(
    "No leftovers of changed settings",
    why="Old and new versions beside each other confuse whoever looks, and old ones can hold what was taken out.",
    fix="rm it",
    sources=("stricter than the vendors",),
    severity="warning",
)
def backup_files(subject: Subject) -> Iterator[Finding]:
    ends = (
        ".dpkg-old",
        ".dpkg-dist",
        ".dpkg-new",
        ".dpkg-tmp",
        ".ucf-old",
        ".ucf-dist",
        ".orig",
        ".bak",
        ".rej",
        ".swp",
        "~",
    )
    yield from entries(e for e in subject.tree.files("/etc") if e.path.endswith(ends))
    yield from entries(subject.tree.glob("/var/backups/*", "/var/lib/dpkg/*-old", "/var/cache/debconf/*-old"))


@check(
    "No histories of source code",
    why="They hold every secret that was ever committed, and the addresses and names of who did it.",
    fix="rm -r the .git folder",
    sources=("stricter than the vendors",),
)
def source_histories(subject: Subject) -> Iterator[Finding]:
    names = ("/.git", "/.hg", "/.svn", "/.bzr")
    yield from entries(e for e in subject.tree.entries if e.path.endswith(names))


@check(
    "Python packages do not come from the builder's folders",
    why="direct_url.json names the folder or the address that a package was installed from.",
    fix="install it from the index",
    sources=("stricter than the vendors",),
)
def python_origins(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.entries:
        if entry.path.endswith(".dist-info/direct_url.json"):
            try:
                address = str(json.loads(subject.tree.text(entry.path) or "").get("url", ""))
            except (ValueError, AttributeError):
                address = ""
            if not address.startswith("https://"):
                yield Finding(entry.path)


@check(
    "No jobs and no mail of anybody",
    why="A builder's job would run on every instance.",
    fix="rm /var/spool/cron/crontabs/* /var/mail/*",
    sources=("stricter than the vendors",),
)
def jobs_and_mail(subject: Subject) -> Iterator[Finding]:
    places = (
        "/var/spool/cron/crontabs/*",
        "/var/spool/cron/atjobs/*",
        "/var/spool/at/*",
        "/var/mail/*",
        "/var/spool/mail/*",
    )
    yield from entries(e for e in subject.tree.glob(*places) if e.is_file and e.size)


@check(
    "No agent of the platform that it was baked on",
    why="DigitalOcean refuses images with its own agent; on another platform it is a stranger's program.",
    fix="apt-get purge droplet-agent do-agent; rm -r /opt/digitalocean",
    sources=("DigitalOcean 16",),
)
def vendor_agents(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob("/opt/digitalocean", "/opt/aws", "/opt/linode"))
    for name in ("droplet-agent", "do-agent", "amazon-ssm-agent", "hc-utils", "vultr-helper"):
        if subject.installed(name):
            yield Finding("/var/lib/dpkg/status", f"the package {name} is installed")
