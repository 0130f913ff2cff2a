"""Reads the text of a document whose content, not whose name, tells what it is. A process for each document.

Prints {"parts": [...]} or, where there is no text to be had, {"refusal": what its owner is told}.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

LARGEST = 512 * 2**20
"""Bytes of what an archive unpacks to."""
LONGEST = 20_000_000
"""Characters of a document."""
Part = tuple[str, dict[str, Any]]
"""A text, and what is known of where it stands."""


class Refusal(Exception):
    """The document has no text that can be read; the message is for its owner."""


def read(path: Path, name: str) -> list[Part]:
    """The document's parts, none of them empty.

    Raises:
        Refusal: it has no text that can be read.
    """
    content = path.read_bytes()
    if not content.strip():
        raise Refusal("The file is empty.")
    try:
        found = [(_clean(text), facts) for text, facts in _reader(content, name)(content) if text.strip()]
    except (Refusal, MemoryError):
        raise
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise Refusal(
            "The document is damaged, or not what it says it is. Open it, save it anew and send that."
        ) from error
    if not found:
        raise Refusal("The document has no text.")
    if sum(len(text) for text, _ in found) > LONGEST:
        raise Refusal(f"The document has more than {LONGEST // 10**6} million characters. Send it in parts.")
    return found


def _clean(text: str) -> str:
    """Without what databases and encoders refuse: parsers of PDF leave zeros and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _reader(content: bytes, name: str) -> Callable[[bytes], Iterable[Part]]:
    start = content[:1024].lstrip()
    if b"%PDF-" in content[:1024]:
        return _pdf
    if content.startswith(b"PK\3\4"):
        return _archive
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _compound
    if start.startswith(b"{\\rtf"):
        return _rtf
    if re.match(rb"<(!doctype html|html|head|body)\b", start, re.IGNORECASE) or name.lower().endswith(
        (".html", ".htm")
    ):
        return _html
    for magic, what in _REFUSED.items():
        if content.startswith(magic):
            raise Refusal(what)
    if content[4:8] == b"ftyp":
        raise Refusal(_SOUND)
    return _text


_PICTURE = "A picture has no text that can be searched. Models that see pictures take it as a picture in the chat."
_SOUND = "This is sound or a film, not a document. Recordings are written down where they are sent as such."
_PACKED = "This is an archive. Unpack it and send the documents that are in it."
_PROGRAM = "This is a program, not a document."
_REFUSED = {
    b"\x89PNG": _PICTURE, b"\xff\xd8\xff": _PICTURE, b"GIF8": _PICTURE, b"II*\0": _PICTURE, b"MM\0*": _PICTURE,
    b"RIFF": "This is a picture, sound or a film, not a document.", b"OggS": _SOUND, b"ID3": _SOUND, b"fLaC": _SOUND,
    b"\x1a\x45\xdf\xa3": _SOUND, b"7z\xbc\xaf\x27\x1c": _PACKED, b"Rar!": _PACKED, b"\x1f\x8b": _PACKED,
    b"BZh": _PACKED, b"\xfd7zXZ": _PACKED, b"\x28\xb5\x2f\xfd": _PACKED, b"\x7fELF": _PROGRAM, b"MZ": _PROGRAM,
}  # fmt: skip
_LOCKED = "The document is protected by a password. Save it without one and send that."


def _pdf(content: bytes) -> Iterator[Part]:
    import pypdf

    document = pypdf.PdfReader(io.BytesIO(content))
    if document.is_encrypted and not document.decrypt(""):
        raise Refusal(_LOCKED)
    texts = [page.extract_text() for page in document.pages]
    if not any(text.strip() for text in texts):
        raise Refusal(
            "The PDF has no text, only pictures of pages, as scanners make them. Have a program for text recognition "
            "(OCR) add the text, then send it again."
        )
    for number, text in enumerate(texts):
        yield text, {"page": number, "page_label": str(number + 1)}


def _archive(content: bytes) -> Iterable[Part]:
    """Office documents and books are archives; which kind, a file inside tells."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    names = set(archive.namelist())
    if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
        raise Refusal("The document unpacks to more than 512 MiB. Send it in parts.")
    kind = archive.read("mimetype").decode("ascii", "replace").strip() if "mimetype" in names else ""
    if kind == "application/epub+zip":
        return _epub(archive)
    if kind.startswith("application/vnd.oasis.opendocument."):
        return _opendocument(archive)
    for name, reader in (("word/document.xml", _docx), ("ppt/presentation.xml", _pptx), ("xl/workbook.xml", _xlsx)):
        if name in names:
            return reader(content)
    if "xl/workbook.bin" in names:
        return _xlsb(content)
    raise Refusal(_PACKED)


def _docx(content: bytes) -> Iterator[Part]:
    import docx
    from docx.table import Table

    lines = []
    for block in docx.Document(io.BytesIO(content)).iter_inner_content():
        if isinstance(block, Table):
            lines += ["\t".join(cell.text for cell in row.cells) for row in block.rows]
        else:
            lines.append(block.text)
    yield "\n".join(lines), {}


def _pptx(content: bytes) -> Iterator[Part]:
    import pptx

    for number, slide in enumerate(pptx.Presentation(io.BytesIO(content)).slides, start=1):
        lines = list(_shapes(slide.shapes))
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame:
            lines.append(slide.notes_slide.notes_text_frame.text)
        yield "\n".join(lines), {"slide": number}


def _shapes(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:
                yield "\t".join(cell.text for cell in row.cells)
        elif shape.has_text_frame:
            yield shape.text_frame.text


def _xlsx(content: bytes) -> Iterator[Part]:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    for sheet in book.worksheets:
        yield _sheet(sheet.title, sheet.iter_rows(values_only=True))


def _xlsb(content: bytes) -> Iterator[Part]:
    import pyxlsb

    with pyxlsb.open_workbook(io.BytesIO(content)) as book:
        for name in book.sheets:
            with book.get_sheet(name) as sheet:
                yield _sheet(name, ([cell.v for cell in row] for row in sheet.rows()))


def _xls(content: bytes) -> Iterator[Part]:
    import xlrd

    with xlrd.open_workbook(file_contents=content, logfile=io.StringIO()) as book:
        for sheet in book.sheets():
            yield _sheet(sheet.name, (sheet.row_values(number) for number in range(sheet.nrows)))


def _sheet(name: str, rows: Iterable[Iterable[Any]]) -> Part:
    """A line for each row that has something, below the sheet's name."""
    lines = ["\t".join("" if value is None else _number(value) for value in row).rstrip() for row in rows]
    filled = [line for line in lines if line]
    return "\n".join([name, *filled]) if filled else "", {"sheet": name}


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _compound(content: bytes) -> Iterable[Part]:
    """Microsoft's files before 2007, and later ones with a password."""
    import olefile

    with olefile.OleFileIO(io.BytesIO(content)) as file:
        if file.exists("EncryptedPackage"):
            raise Refusal(_LOCKED)
        if file.exists("Workbook") or file.exists("Book"):
            return _xls(content)
        for stream, what, instead in (
            ("WordDocument", "Word", ".docx"), ("PowerPoint Document", "PowerPoint", ".pptx")
        ):  # fmt: skip
            if file.exists(stream):
                raise Refusal(
                    f"This is a document of {what} 97-2003, which cannot be read here. "
                    f"Open it and save it as {instead}, OpenDocument or PDF."
                )
    raise Refusal("Files of this kind have no text that can be read here. Save it as PDF or as plain text.")


def _opendocument(archive: zipfile.ZipFile) -> Iterator[Part]:
    if "META-INF/manifest.xml" in archive.namelist() and b"encryption-data" in archive.read("META-INF/manifest.xml"):
        raise Refusal(_LOCKED)
    body = _xml(archive.read("content.xml")).find(f"{{{_OFFICE}}}body")
    yield "\n".join(_blocks(body) if body is not None else ()), {}


_OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_WHITE = {f"{_TEXT}s": " ", f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n"}


def _blocks(element: Element) -> Iterator[str]:
    """A line for each paragraph and each row of a table."""
    for child in element:
        if child.tag == f"{_TABLE}table-row":
            cells = ("\n".join(_blocks(cell)) for cell in child if cell.tag == f"{_TABLE}table-cell")
            row = "\t".join(cells).rstrip()
            if row:
                yield row
        elif child.tag in (f"{_TEXT}p", f"{_TEXT}h"):
            yield "".join(_inline(child))
        elif child.tag != f"{_TEXT}tracked-changes":
            yield from _blocks(child)


def _inline(element: Element) -> Iterator[str]:
    yield _WHITE.get(element.tag, "") + (element.text or "")
    for child in element:
        yield from _inline(child)
        yield child.tail or ""


def _epub(archive: zipfile.ZipFile) -> Iterator[Part]:
    """The chapters in reading order."""
    if "META-INF/encryption.xml" in archive.namelist() and "META-INF/rights.xml" in archive.namelist():
        raise Refusal("The book is locked by its seller (DRM).")
    container = _xml(archive.read("META-INF/container.xml"))
    place = next(element.attrib["full-path"] for element in container.iter() if element.tag.endswith("}rootfile"))
    package = _xml(archive.read(place))
    files = {
        element.attrib["id"]: element.attrib["href"] for element in package.iter() if element.tag.endswith("}item")
    }
    for number, element in enumerate(e for e in package.iter() if e.tag.endswith("}itemref")):
        href = files.get(element.attrib["idref"], "").partition("#")[0]
        name = posixpath.normpath(posixpath.join(posixpath.dirname(place), href))
        if name in archive.namelist():
            for text, _ in _html(archive.read(name)):
                yield text, {"chapter": number + 1}


def _xml(content: bytes) -> Element:
    """Without entities of its own, which could name further files or grow without end."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(content)
    except DefusedXmlException as error:
        raise Refusal(
            "The document declares entities of its own, which are not read here. Save it anew and send that."
        ) from error
    return root


def _rtf(content: bytes) -> Iterator[Part]:
    from striprtf.striprtf import rtf_to_text

    yield rtf_to_text(content.decode("latin-1"), errors="ignore"), {}


def _html(content: bytes) -> Iterator[Part]:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(content, "lxml")
    for element in page(["script", "style", "template", "noscript"]):
        element.decompose()
    title = page.title.get_text(" ", strip=True) if page.title else ""
    if page.head:
        page.head.decompose()
    text = page.get_text("\n", strip=True)
    yield (f"{title}\n{text}" if title and not text.startswith(title) else text), {}


def _text(content: bytes) -> Iterator[Part]:
    text = _decoded(content)
    strange = sum(ord(char) < 32 and char not in "\t\n\r\f\b\x1b" for char in text[:100_000])
    if strange > len(text[:100_000]) // 1000:
        raise Refusal("Files of this kind have no text that can be read here. Save it as PDF or as plain text.")
    yield text, {}


def _decoded(content: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        import chardet

        return content.decode(chardet.detect(content[:100_000])["encoding"] or "latin-1", "replace")


def main() -> int:
    warnings.simplefilter("ignore")
    path, name = sys.argv[1:]
    try:
        parts = [{"page_content": text, "metadata": facts} for text, facts in read(Path(path), name)]
        answer: dict[str, Any] = {"parts": parts}
    except Refusal as refusal:
        answer = {"refusal": str(refusal)}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
