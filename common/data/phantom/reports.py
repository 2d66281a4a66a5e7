"""Reports of phantom studies: what is said, how it is laid out in a file, and the word pieces.

A positive finding is always mentioned, sometimes as uncertain; an absent one is negated with a
probability of its own, otherwise passed over. `Lung Opacity`, `Pneumonia` and `Enlarged
Cardiomediastinum` count as mentioned only where their words stand in a sentence, as a labeller that
reads text would have it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.data.phantom import absences, phrases

if TYPE_CHECKING:
    from common.data.phantom.world import Finding, Study

SECTIONS = ("examination", "indication", "technique", "comparison", "findings", "impression")
NOTHING = "No acute cardiopulmonary process."
IMPLIED = {
    "Lung Opacity": re.compile(r"\bopacit(y|ies|ification)\b"),
    "Pneumonia": re.compile(r"\bpneumonia\b"),
    "Enlarged Cardiomediastinum": re.compile(
        r"\bwidened mediastinum\b|\bmediastinum is widened\b|\bmediastinal (contours|silhouette)\b"
    ),
}
UNCERTAIN_POSITIVE, UNCERTAIN_NEGATION = 0.10, 0.03
ENDED = "___"
SPLIT: Mapping[str, str] = {
    "cardiomegaly": "card ##io ##meg ##aly",
    "atelectasis": "at ##ele ##ctasis",
    "consolidation": "consol ##idation",
    "effusion": "eff ##usion",
    "effusions": "eff ##usion ##s",
    "pneumothorax": "pneumo ##thorax",
    "pneumonia": "pneumo ##nia",
    "interstitial": "inter ##stitial",
    "bibasilar": "bi ##bas ##ila ##r",
    "subsegmental": "sub ##seg ##mental",
    "retrocardiac": "retro ##card ##iac",
    "costophrenic": "cost ##op ##hren ##ic",
    "subpulmonic": "sub ##pu ##lm ##onic",
    "mediastinum": "media ##sti ##num",
    "mediastinal": "media ##sti ##nal",
    "cardiopulmonary": "card ##io ##pulmonary",
    "bandlike": "band ##like",
    "endotracheal": "end ##ot ##rac ##heal",
    "perihilar": "per ##ih ##ila ##r",
    "redemonstration": "re ##de ##mons ##tration",
    "bronchograms": "bronch ##ogram ##s",
    "cavoatrial": "ca ##vo ##at ##rial",
    "radiopaque": "radio ##pa ##que",
    "uppper": "up ##pp ##er",
    "presistent": "pre ##sis ##tent",
    "apperance": "app ##eran ##ce",
}
"""Long words that a vocabulary learnt on general text lacks."""

PROMPT_WORDS = (
    "other chambers are less prominent increased improved improvement in decreased tiny trace "
    "residual reticular partial bilateral ventricular enlargement at the bilateral lung bases mid "
    "lung zone focal multifocal clear process abnormality infiltrate opacities pneumonia "
    "suspicious evidence lobar basilar apical lingular right left upper lower middle airspace"
)
"""Words that zero-shot prompts use; reports need not contain each of them."""


def compose(
    findings: Sequence[Finding],
    truth: Mapping[str, int],
    rng: np.random.Generator,
    *,
    view: str,
    sex: str,
    age: int,
) -> tuple[dict[str, str], dict[str, float]]:
    """Write a complete report.

    Args:
        findings: What the image shows.
        truth: Image labels; decides on words for labels that follow from others.
        rng: Source of every choice.
        view: `PA` or `AP`.
        sex: `Male` or `Female`.
        age: Years.

    Returns:
        Text by section, and the state of each label (1, 0, -1, NaN) as the report has it.
    """
    mentions = dict.fromkeys(truth, float("nan"))
    blocks: dict[str, list[str]] = {name: [] for name in phrases.BLOCKS}
    positives: list[tuple[float, str]] = []
    for finding in findings:
        state = -1.0 if rng.random() < UNCERTAIN_POSITIVE else 1.0
        if finding.label == "Support Devices":
            state = 1.0
        sentence, summary = _positive(finding, state, rng)
        blocks[phrases.BLOCK_OF[finding.label]].append(sentence)
        _note(mentions, finding.label, state, f"{sentence} {summary}")
        if finding.label != "Support Devices" or rng.random() < 0.3:
            positives.append((phrases.URGENCY[finding.label] + finding.severity, summary))
    if truth["Enlarged Cardiomediastinum"] and rng.random() < 0.10:
        sentence = _pick(rng, phrases.WIDENED)
        blocks["heart"].append(sentence)
        positives.append((phrases.URGENCY["Enlarged Cardiomediastinum"], sentence))
        mentions["Enlarged Cardiomediastinum"] = 1.0
    shown = {finding.label for finding in findings}
    for label, (probability, texts, doubts) in absences.NEGATIONS.items():
        if label not in shown and not truth.get(label, 0) and rng.random() < probability:
            doubtful = rng.random() < UNCERTAIN_NEGATION
            sentence = _pick(rng, doubts if doubtful else texts)
            blocks[phrases.BLOCK_OF[label]].append(sentence)
            _note(mentions, label, -1.0 if doubtful else 0.0, sentence)
    _conclude(mentions)
    sections = _preliminaries(rng, view=view, sex=sex, age=age)
    sections["findings"] = _join(blocks, rng)
    sections["impression"] = _impression(positives)
    return sections, mentions


def _positive(finding: Finding, state: float, rng: np.random.Generator) -> tuple[str, str]:
    """A sentence for the findings section and one for the impression."""
    slots = {
        "side": finding.side,
        "zone": finding.zone,
        "size": phrases.size_word(finding.label, finding.severity),
        "where": _where(finding, rng),
        "lung": "both lungs" if finding.side == "bilateral" else f"the {finding.side} lung",
        "rib": str(rng.choice(["fifth", "sixth", "seventh", "eighth"])),
        "trend": _pick(rng, phrases.TRENDS),
    }
    if state < 0:
        text = _pick(rng, absences.UNCERTAIN[finding.label])
        return _fill(text, slots), _fill(text, slots)
    full, short = phrases.positives(finding.label, finding.kind, finding.severity)
    if finding.side == "bilateral":
        full, short = phrases.both_sides(finding.label) or (full, short)
    if finding.label == "Consolidation":
        chance = 0.30 if finding.kind == "pneumonia" else 0.20
        if rng.random() < chance:
            full, short = phrases.opaque_wording(finding.kind)
    return _fill(_pick(rng, full), slots), _fill(_pick(rng, short), slots)


def _where(finding: Finding, rng: np.random.Generator) -> str:
    """A place in words that fits side and zone."""
    places = phrases.PLACES.get((finding.side, finding.zone), ("in the lungs",))
    return _pick(rng, places)


def _pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    return texts[int(rng.integers(len(texts)))]


def _fill(text: str, slots: Mapping[str, str]) -> str:
    """Fill the slots, close double spaces, start with a capital."""
    filled = re.sub(r" +", " ", text.format_map(slots)).replace(" .", ".").strip()
    return filled[0].upper() + filled[1:]


def _note(mentions: dict[str, float], label: str, state: float, text: str) -> None:
    """Record the state of `label` and of what `text` says beside it; positives win."""
    named = [label, *(name for name, words in IMPLIED.items() if words.search(text.lower()))]
    for name in named:
        if name in mentions:
            before = mentions[name]
            rank = {1.0: 3, -1.0: 2, 0.0: 1}
            if rank[state] > rank.get(before, 0):
                mentions[name] = state


def _conclude(mentions: dict[str, float]) -> None:
    """`No Finding` is 1 where nothing but devices is positive or uncertain, else blank."""
    others = (name for name in mentions if name not in ("No Finding", "Support Devices"))
    if not any(mentions[name] in (1.0, -1.0) for name in others):
        mentions["No Finding"] = 1.0


def _join(blocks: Mapping[str, list[str]], rng: np.random.Generator) -> str:
    """Sentences shuffled within anatomical blocks; a fixed phrase where none would be left."""
    text = []
    for sentences in blocks.values():
        order = rng.permutation(len(sentences))
        text += [sentences[i] for i in order]
    return " ".join(text) or "The examination is unremarkable."


def _impression(positives: list[tuple[float, str]]) -> str:
    """Positives, most urgent first, numbered when there are several."""
    texts = list(dict.fromkeys(text for _, text in sorted(positives, key=lambda item: -item[0])))
    if not texts:
        return NOTHING
    if len(texts) == 1:
        return texts[0]
    return " ".join(f"{n}. {text}" for n, text in enumerate(texts, 1))


def _preliminaries(rng: np.random.Generator, *, view: str, sex: str, age: int) -> dict[str, str]:
    """The sections that say nothing about the image."""
    portable = view == "AP"
    who = "man" if sex == "Male" else "woman"
    years = ENDED if rng.random() < 0.8 or age > 89 else str(age)
    return {
        "examination": "CHEST (PORTABLE AP)" if portable else "CHEST (PA AND LAT)",
        "indication": f"{years} year old {who} with {_pick(rng, phrases.COMPLAINTS)}.",
        "technique": _pick(rng, phrases.TECHNIQUES["AP" if portable else "PA"]),
        "comparison": _pick(rng, phrases.COMPARISONS),
    }


def study_text(study: Study) -> str:
    """The report file in the style of MIMIC-CXR, with the study's quirk.

    One leading space a line, lines of at most 79 columns, a line of one space between sections;
    anonymised spans are `___`.
    """
    head = f"{'FINAL REPORT':>45}\n SYNTHETIC PHANTOM STUDY\n \n"
    if study.quirk == "blank":
        return f"{head} {ENDED}\n"
    sections = dict(study.sections)
    if study.quirk == "last_paragraph":
        body = sections.pop("findings")
        sections.pop("impression")
        return head + _lay_out(sections.items()) + " \n" + _paragraph(body)
    if study.quirk == "no_impression":
        sections.pop("impression")
    if study.quirk == "no_findings":
        sections.pop("findings")
    if study.quirk == "merged_header":
        both = f"{sections.pop('findings')} {sections.pop('impression')}"
        sections["findings and impression"] = both
    if study.quirk == "misspelt_header":
        sections["impresson"] = sections.pop("impression")
    if study.quirk == "swallowed_header":
        sections.pop("findings")
        text = _lay_out(item for item in sections.items() if item[0] != "impression")
        swallowed = _paragraph(f"IMPRESSION: {sections['impression']}")
        return f"{head}{text} \n FINDINGS:\n{swallowed}"
    text = head + _lay_out(sections.items())
    return _addendum(study) + text if study.quirk == "addendum" else text


def _addendum(study: Study) -> str:
    """A correction before the report; for odd studies it contradicts the report."""
    effusion = study.truth["Pleural Effusion"]
    if study.index % 2:
        claim = "There is no pleural effusion." if effusion else "There is a pleural effusion."
    else:
        claim = f"The findings were discussed with Dr. {ENDED}."
    text = _paragraph(f"ADDENDUM: {claim}")
    return f"{'FINAL REPORT':>45}\n{text} \n {'_' * 78}\n"


def _lay_out(sections: Iterable[tuple[str, str]]) -> str:
    parts = []
    for name, text in sections:
        header = name.upper()
        if name in ("findings", "impression"):
            items = re.split(r" (?=\d\. )", text)
            parts.append(f" {header}:\n \n" + " \n".join(_paragraph(item) for item in items))
        else:
            parts.append(_paragraph(f"{header}:  {text}"))
    return " \n".join(parts)


def _paragraph(text: str) -> str:
    lines = textwrap.wrap(text, 78, break_long_words=False, drop_whitespace=True)
    return "".join(f" {line}\n" for line in lines)


def build_vocabulary() -> list[str]:
    """The word pieces of `vocab.txt`: for cased WordPiece, fed with lower-cased text.

    Special pieces, then every ASCII character alone and (letters, digits) as a continuation, so
    that no ASCII word is unknown, then the words of the reports and of common zero-shot prompts.
    Long clinical words of `SPLIT` exist only in pieces, as in vocabularies learnt on
    general text.
    """
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    pieces += [f"##{c}" for c in characters if c.isalnum()]
    words = {
        word
        for text in [*phrases.every_text(), PROMPT_WORDS]
        for word in re.findall(r"[a-z]+", text.lower())
    }
    split = [piece for parts in SPLIT.values() for piece in parts.split()]
    whole = {word for word in words if word not in SPLIT}
    return list(dict.fromkeys([*pieces, *sorted(whole | set(split))]))
