"""Documents of every kind, each with the same sentence; and files that have no text to give."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping

import docx
import openpyxl
import pptx
import xlwt

from tests.support.documents import pdf, picture_pdf

SENTENCE = "The lighthouse keeper of Kappel is called Ottilie."
Maker = Callable[[], bytes]


def _zip(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.add_paragraph("Before.")
    document.add_table(1, 2).rows[0].cells[1].text = SENTENCE
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def powerpoint() -> bytes:
    show = pptx.Presentation()
    show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = SENTENCE
    buffer = io.BytesIO()
    show.save(buffer)
    return buffer.getvalue()


def excel() -> bytes:
    book = openpyxl.Workbook()
    book.active.append([7, SENTENCE, None])
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def excel_97() -> bytes:
    book = xlwt.Workbook()
    book.add_sheet("Sheet").write(0, 1, SENTENCE)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _compound(stream: str) -> bytes:
    """A file of Microsoft's before 2007 with a stream of that name: Excel's, renamed."""
    entry = "Workbook".encode("utf-16-le").ljust(64, b"\0") + struct.pack("<H", 18)
    name = stream.encode("utf-16-le")
    assert excel_97().count(entry) == 1
    return excel_97().replace(entry, name.ljust(64, b"\0") + struct.pack("<H", len(name) + 2))


def word_97() -> bytes:
    return _compound("WordDocument")


def powerpoint_97() -> bytes:
    return _compound("PowerPoint Document")


def locked() -> bytes:
    return _compound("EncryptedPackage")


def opendocument(kind: str, manifest: str = "") -> bytes:
    names = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table")
    )
    paragraph = f"<text:p>{SENTENCE.replace(' ', '<text:s/>', 1)}</text:p>"
    inside = {
        "text": f"<office:text>{paragraph}</office:text>",
        "spreadsheet": "<office:spreadsheet><table:table><table:table-row><table:table-cell/>"
        f"<table:table-cell>{paragraph}</table:table-cell></table:table-row></table:table></office:spreadsheet>",
        "presentation": f"<office:presentation>{paragraph}</office:presentation>",
    }[kind]
    content = f"<office:document-content{names}><office:body>{inside}</office:body></office:document-content>"
    return _zip(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": content,
            "META-INF/manifest.xml": manifest,
        }
    )


def book() -> bytes:
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="text/a.xhtml"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    return _zip(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/book.opf": package,
            "OEBPS/text/a.xhtml": f"<html><head><title>A book</title></head><body><p>{SENTENCE}</p></body></html>",
        }
    )


def rich_text() -> bytes:
    return rb"{\rtf1\ansi\deff0{\fonttbl{\f0 Arial;}}\f0 " + SENTENCE.encode() + rb"\par}"


READABLE: dict[str, Maker] = {
    "note.txt": SENTENCE.encode,
    "note-utf16.txt": lambda: SENTENCE.encode("utf-16"),
    "page.html": lambda: f"<!DOCTYPE html><html><script>no()</script><body><p>{SENTENCE}</p></body></html>".encode(),
    "paper.pdf": lambda: pdf(SENTENCE),
    "letter.docx": word,
    "talk.pptx": powerpoint,
    "sheet.xlsx": excel,
    "sheet.xls": excel_97,
    "letter.odt": lambda: opendocument("text"),
    "sheet.ods": lambda: opendocument("spreadsheet"),
    "talk.odp": lambda: opendocument("presentation"),
    "book.epub": book,
    "letter.rtf": rich_text,
    "wrong-name.txt": word,
}
"""By name; the last has another content than its name says."""
REFUSED: dict[str, tuple[Maker, str]] = {
    "empty.pdf": (lambda: b"", "is empty"),
    "scan.pdf": (picture_pdf, "text recognition"),
    "damaged.pdf": (lambda: b"%PDF-1.7\n" + b"\x00\x01" * 99, "damaged"),
    "damaged.docx": (lambda: word()[:-300], "damaged"),
    "old.doc": (word_97, ".docx"),
    "old.ppt": (powerpoint_97, ".pptx"),
    "locked.docx": (locked, "password"),
    "locked.odt": (lambda: opendocument("text", "<manifest:encryption-data/>"), "password"),
    "entities.odt": (
        lambda: _zip(
            {
                "mimetype": "application/vnd.oasis.opendocument.text",
                "content.xml": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
            }
        ),
        "entities",
    ),
    "bomb.docx": (lambda: _zip({"word/document.xml": bytes(600 * 2**20)}), "512 MiB"),
    "archive.zip": (lambda: _zip({"a.txt": SENTENCE}), "archive"),
    "blank.docx": (lambda: _blank(), "no text"),
    "photo.png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "picture"),
    "program.bin": (lambda: bytes(range(256)) * 40, "plain text"),
}
"""By name; and a part of what their owner is told."""


def _blank() -> bytes:
    buffer = io.BytesIO()
    docx.Document().save(buffer)
    return buffer.getvalue()
