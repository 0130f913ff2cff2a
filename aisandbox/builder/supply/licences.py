"""Licences as SPDX expressions, from what packages say of themselves.

A name that SPDX's list does not have becomes a `LicenseRef-…`; where nothing was said, or nothing that can be read,
the licence is `NOASSERTION`. Nothing is guessed: "BSD" without a number of clauses stays `LicenseRef-BSD`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from license_expression import Licensing, get_spdx_licensing

NOASSERTION = "NOASSERTION"
LONGEST = 200
"""Characters; a longer statement is a licence's text, not its name."""
LARGEST_TEXT = 20_000
"""Characters of a licence's text that are kept."""
REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
ALIASES = {
    "agpl-3+": "AGPL-3.0-or-later",
    "agpl-3": "AGPL-3.0-only",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd-2": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd3": "BSD-3-Clause",
    "boost": "BSL-1.0",
    "bsl-1": "BSL-1.0",
    "bzip": "bzip2-1.0.6",
    "cc0": "CC0-1.0",
    "expat": "MIT",
    "gpl-1": "GPL-1.0-only",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "gfdl-niv-1.3": "GFDL-1.3-no-invariants-only",
    "gfdl-niv-1.3+": "GFDL-1.3-no-invariants-or-later",
    "gfdl-1.3+-no-invariant": "GFDL-1.3-no-invariants-or-later",
    "isc license": "ISC",
    "lgpl": "LGPL-2.0-or-later",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-3": "LGPL-3.0-only",
    "lgpl-3+": "LGPL-3.0-or-later",
    "lgpl v3": "LGPL-3.0-only",
    "lgplv3+": "LGPL-3.0-or-later",
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mit/x11": "MIT",
    "mpl-2": "MPL-2.0",
    "openldap-2.8": "OLDAP-2.8",
    "psf-2": "PSF-2.0",
    "psfl": "PSF-2.0",
    "psf license": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "sil-1.1": "OFL-1.1",
    "unlicense": "Unlicense",
    "x11": "X11",
    "zlib/libpng": "Zlib",
}
"""What packages write for licences of SPDX's list, in lower case. Debian's short names are among them."""
EXCEPTIONS = {
    "autoconf-2": "Autoconf-exception-2.0",
    "autoconf-3": "Autoconf-exception-3.0",
    "bison": "Bison-exception-2.2",
    "classpath": "Classpath-exception-2.0",
    "font": "Font-exception-2.0",
    "gcc": "GCC-exception-3.1",
    "libtool": "Libtool-exception",
    "linux-syscall-note": "Linux-syscall-note",
    "llvm": "LLVM-exception",
    "texinfo": "Texinfo-exception",
}
"""Exceptions in Debian's words; Autoconf's by the version of the GPL."""
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "LicenseRef-BSD",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Other/Proprietary License": "LicenseRef-Proprietary",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zero-Clause BSD (0BSD)": "0BSD",
}
"""PyPI's classifiers, by their last part."""


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@cache
def spdx(statement: str) -> str | None:
    """A name or an expression as SPDX writes it; None when it is neither."""
    text = " ".join(statement.split())
    if not text or len(text) > LONGEST:
        return None
    if alias := ALIASES.get(text.lower()):
        return alias
    try:
        known = _licensing().validate(text)
        if known.normalized_expression:
            expression = str(known.normalized_expression)
        elif known.invalid_symbols and all(REFERENCE.fullmatch(symbol) for symbol in known.invalid_symbols):
            expression = str(_licensing().parse(text))
        else:
            return None
    except Exception:  # noqa: BLE001 - the library trips over some invalid expressions
        return None
    # The library knows names of other lists, too, which SPDX's readers do not.
    return expression if all(name in text for name in REFERENCE.findall(expression)) else None


def reference(*words: str) -> str:
    """A `LicenseRef-…` of these words."""
    said = re.sub(r"(?<=\d)\+", "-or-later", " ".join(words).removeprefix("LicenseRef-"))
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", said).strip("-.")
    return f"LicenseRef-{slug[:80] or 'unnamed'}"


def all_of(expressions: Iterable[str]) -> str:
    """The expression that asks for all of these; each once, sorted."""
    parts = sorted({part for expression in expressions if expression for part in _conjuncts(expression)})
    if not parts:
        return NOASSERTION
    return parts[0] if len(parts) == 1 else " AND ".join(f"({part})" if " OR " in part else part for part in parts)


def _conjuncts(expression: str) -> list[str]:
    return [expression] if "(" in expression or " OR " in expression else expression.split(" AND ")


def symbols(expression: str) -> list[str]:
    """The licences that an expression names, an exception beside its licence."""
    words = re.sub(r"[()]", " ", expression)
    return sorted({part.strip() for part in re.split(r"\s(?:AND|OR)\s", f" {words} ") if part.strip()})


def titled(text: str) -> str | None:
    """The licence whose text this is, by its first line; None when that does not name one."""
    first = next((line.strip(" =\t#*.:") for line in text.splitlines() if line.strip(" =\t#*.:")), "")
    if first.lower().startswith("open webui license"):
        return "LicenseRef-Open-WebUI"
    return spdx(first) if first.lower() in ALIASES else None


def debian(statement: str, source: str) -> str:
    """What a machine-readable copyright file says in a `License` field, as an SPDX expression.

    Args:
        source: the source package; short names that SPDX does not have mean something in its copyright file only.
    """
    text = " ".join(statement.replace(" and/or ", " or ").split()).strip(" ,.")
    # A comma before `and` or `or` makes it bind less than the others do.
    first, *rest = re.split(r",\s*(and|or)\s+", text)
    if not rest:
        return _plain(first, source)
    groups = [_plain(part, source) for part in (first, *rest[1::2])]
    bracketed = [f"({part})" if re.search(r" (?:AND|OR) ", part) else part for part in groups]
    return _joined(bracketed, rest[::2])


def _plain(text: str, source: str) -> str:
    first, *rest = re.split(r"\s(and|or)\s", text)
    return _joined([_short_name(part, source) for part in (first, *rest[1::2])], rest[::2])


def _joined(operands: list[str], operators: list[str]) -> str:
    pairs = zip(operators, operands[1:], strict=True)
    return operands[0] + "".join(f" {operator.upper()} {operand}" for operator, operand in pairs)


def _short_name(name: str, source: str) -> str:
    name = name.strip(" ,;")
    if found := spdx(name):
        return found
    # Variations of a text: `BSD-3-clause~Intel` and the like.
    base, _, exception = name.partition(" with ")
    licence = spdx(base)
    if licence and exception:
        word = exception.lower().split()[0].strip(",.")
        version = "-2" if "GPL-2" in licence else "-3"
        known = EXCEPTIONS.get(word) or EXCEPTIONS.get(word + version)
        if known and (whole := spdx(f"{licence} WITH {known}")):
            return whole
    if name.lower().replace("-", " ") in ("public domain", "pd"):
        return "LicenseRef-Public-Domain"
    return reference("Debian", source, name)
