"""PDFs for tests, made by hand."""

from __future__ import annotations

from collections.abc import Sequence


def pdf(*pages: str) -> bytes:
    """A PDF of pages with lines of text."""
    return _pdf([_page(text.splitlines()) for text in pages])


def picture_pdf(pages: int = 2) -> bytes:
    """What a scanner makes: pages with a picture each, here a grey square, and no text."""
    return _pdf([b"q 200 0 0 200 72 500 cm 0.5 g 0 0 1 1 re f Q"] * pages)


def minutes(pages: int, sentence: str) -> bytes:
    """A PDF of pages as full as a book's, no two alike, with the sentence past the middle."""
    made = []
    for number in range(1, pages + 1):
        lines = [f"Minutes of Kappel, item {number}.{line}: {_SAID[line % len(_SAID)]}" for line in range(28)]
        if number == pages * 5 // 8:
            lines[14] = sentence
        made.append("\n".join(lines))
    return pdf(*made)


_SAID = (
    "The council of the town met in the large hall and spoke at length of roads, bridges, taxes and the weather.",
    "Nobody could say how much the new market would cost, and the matter was put off until the following month.",
    "Letters from the villages were read aloud, among them a long complaint about the ferry and its bell.",
)


def _page(lines: Sequence[str]) -> bytes:
    shown = b" T* ".join(b"(%s) Tj" % line.translate(_ESCAPES).encode("latin-1") for line in lines)
    return b"BT /F1 10 Tf 12 TL 50 740 Td %s ET" % shown


_ESCAPES = str.maketrans({"(": r"\(", ")": r"\)", "\\": r"\\"})


def _pdf(contents: Sequence[bytes]) -> bytes:
    font = b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    kids = b" ".join(b"%d 0 R" % (3 + 2 * number) for number in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
    ]
    for number, content in enumerate(contents):
        place = 4 + 2 * number
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R %s >>" % (place, font))
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    body = b"%PDF-1.4\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % pair for pair in enumerate(objects, 1))
    return body + b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n0\n%%%%EOF\n" % (len(objects) + 1)
