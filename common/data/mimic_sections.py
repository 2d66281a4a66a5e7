"""Sections of a MIMIC-CXR report, as its maintainers' parser finds them, oddities included.

Source: the facts of `txt/section_parser.py` and `create_section_files.py` in MIT-LCP/mimic-cxr.

What is odd, and kept, because published numbers rest on it:

* A header needs a newline and a space before it, so one on the first line or in the first column
  is not seen; deeper indentation by spaces is.
* The whitespace that ends a header may be the newline that the next header needs. A header alone on
  its line therefore swallows one on the line below: `FINDINGS:` over `IMPRESSION: two` is one
  findings section.
* The misspelling `ndication` counts as impression.

54 studies are treated by hand there (`MAINTAINERS`): 23 take a section of another name, 31 take
character offsets, 8 of these empty. The maintainers write them to `mimic_cxr_sections.csv` alone,
so code that reads `mimic_cxr_sectioned.csv` loses them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from common.data.tables import DataError

SECTIONS = ("impression", "findings", "last_paragraph", "comparison")
"""In order of preference when one text is wanted."""

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_BLANK_LINE = "\n \n"

_SPELLINGS = {
    "impression": (
        "impression",
        "conclusion",
        "findings and impression",
        "findings/impression",
        "findings/ impression",
        "ndication",
        "impresson",
        "imprression",
        "imoression",
        "impressoin",
        "imprssion",
        "impresion",
        "imperssion",
        "mpression",
        "impession",
    ),
    "findings": (
        "findings",
        "chest, two views",
        "finding",
        "findins",
        "findindgs",
        "findgings",
        "findngs",
        "findnings",
        "finidngs",
        "reference findings",
    ),
    "comparison": (
        "comparison",
        "comparisons",
        "reference exam",
        "comparison exam",
        "comparison film",
        "comparision",
        "comparsion",
        "comparrison",
        "comparisions",
    ),
    "indication": (
        "indication",
        "reason for examination",
        "reason for exam",
        "clinical indication",
        "idication",
    ),
    "history": ("history", "clinical history", "clinical information", "patient history", "pfi"),
    "examination": ("examination", "exam", "type of examination"),
    "recommendations": ("recommendations", "recommendation(s)", "recommendation"),
    "wet read": ("wet read", "wetread"),
    "technique": ("technique",),
    "notification": ("notification",),
    "addendum": ("addendum",),
    "date": ("date",),
    "comment": ("comment",),
    "preamble": ("preamble",),
}
_EXACT = {spelling: name for name, many in _SPELLINGS.items() for spelling in many}
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
_VIEWS = (
    "chest",
    "portable",
    "pa and lateral",
    "lateral and pa",
    "ap and lateral",
    "lateral and ap",
    "frontal and",
    "two views",
    "frontal view",
    "pa view",
    "ap view",
    "one view",
    "lateral view",
    "bone window",
    "frontal upright",
    "frontal semi-upright",
    "ribs",
    "pa and lat",
)


class Section(NamedTuple):
    """One section: its normalised name and its text as it stands."""

    name: str
    text: str


@dataclass(frozen=True)
class CustomSections:
    """Studies treated by hand, by study id without the `s`.

    Attributes:
        names: The section to use instead of the preferred one.
        offsets: First and last character (exclusive) of the text to use; (0, 0) is empty.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    offsets: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_custom(path: Path) -> CustomSections:
    """`{"names": {"5...": "history"}, "offsets": {"5...": [10, 200]}}` from a JSON file.

    Raises:
        DataError: If the file is not of that form.
    """
    try:
        content = json.loads(path.read_text())
        names = {key.removeprefix("s"): str(name) for key, name in content["names"].items()}
        offsets = {
            key.removeprefix("s"): (int(start), int(end))
            for key, (start, end) in content["offsets"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: expected {{"names": {{}}, "offsets": {{}}}} ({error})') from error
    return CustomSections(names, offsets)


MAINTAINERS = read_custom(Path(__file__).with_name("mimic_custom_sections.json"))
"""The 54 studies that the maintainers treat by hand."""


def split_report(text: str) -> list[Section]:
    """All sections in order; text before the first header is `preamble`."""
    match = _HEADER.search(text)
    if match is None:
        return _last_paragraph([Section("full report", text)])
    sections = [Section("preamble", text[: match.start(1)])]
    while match is not None:
        name, start = normalise(match[1]), match.end()
        match = _HEADER.search(text, start)  # behind the whitespace, which may be the newline
        sections.append(Section(name, text[start : match.start() if match else len(text)]))
    kept = [s for s in sections if s.name not in ("impression", "findings") or s.text.strip()]
    return _last_paragraph(kept)


def _last_paragraph(sections: list[Section]) -> list[Section]:
    """Without findings and impression, the last section's text below its first blank line."""
    last = sections[-1]
    named = any(section.name in ("impression", "findings") for section in sections)
    if named or _BLANK_LINE not in last.text:
        return sections
    head, _, tail = last.text.partition(_BLANK_LINE)
    return [*sections[:-1], Section(last.name, head), Section("last_paragraph", tail)]


def normalise(header: str) -> str:
    """A header's section: exact spelling, then a contained name, then a view phrase."""
    name = header.strip().lower()
    if name in _EXACT:
        return _EXACT[name]
    for section in _CONTAINED:
        if section in name:
            return section
    return "findings" if any(view in name for view in _VIEWS) else name


def sections_of(
    text: str, study_id: str = "", *, custom: CustomSections = MAINTAINERS
) -> dict[str, str]:
    """The sections `SECTIONS` of a report, "" where absent; of several the last.

    A study of `custom` has its hand-picked text as `impression` and nothing else.
    """
    found = dict.fromkeys(SECTIONS, "")
    if study_id in custom.offsets:
        start, end = custom.offsets[study_id]
        return {**found, "impression": text[start:end]}
    sections = {section.name: section.text.strip() for section in split_report(text)}
    if study_id in custom.names:
        return {**found, "impression": sections.get(custom.names[study_id], "")}
    return {name: sections.get(name, "") for name in SECTIONS}


def used_text(sections: Mapping[str, str]) -> str:
    """The one text the maintainers use: the first of `SECTIONS` that is not empty."""
    return next((sections[name] for name in SECTIONS if sections[name]), "")
