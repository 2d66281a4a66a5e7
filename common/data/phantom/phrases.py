"""The sentences of phantom reports, and the words they are cut into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from common.data.phantom.absences import NEGATIONS, UNCERTAIN

Texts = Sequence[str]

BLOCKS = ("devices", "lungs", "pleura", "heart", "bones")
BLOCK_OF: Mapping[str, str] = {
    "Support Devices": "devices",
    "Foreign Object": "devices",
    "Consolidation": "lungs",
    "Edema": "lungs",
    "Atelectasis": "lungs",
    "Lung Lesion": "lungs",
    "Pleural Effusion": "pleura",
    "Pneumothorax": "pleura",
    "Pleural Other": "pleura",
    "Cardiomegaly": "heart",
    "Enlarged Cardiomediastinum": "heart",
    "Pneumonia": "lungs",
    "Lung Opacity": "lungs",
    "Fracture": "bones",
}
URGENCY: Mapping[str, float] = {
    "Pneumothorax": 9,
    "Edema": 7.5,
    "Consolidation": 7,
    "Pleural Effusion": 6,
    "Lung Lesion": 5.5,
    "Cardiomegaly": 4,
    "Enlarged Cardiomediastinum": 3.5,
    "Atelectasis": 3,
    "Fracture": 2.5,
    "Pleural Other": 2,
    "Foreign Object": 1,
    "Support Devices": 0,
}
"""Order in the impression, before severity (0 to 1) is added."""

TRENDS: Texts = ("", "", "", "", "", "stable", "increased", "persistent", "improved", "unchanged")

PLACES: Mapping[tuple[str, str], Texts] = {
    ("left", "upper"): (
        "at the left upper lobe",
        "in the left upper lung zone",
        "at the left apex",
    ),
    ("left", "mid"): ("in the left mid lung zone", "at the left lung zone", "in the lingula"),
    ("left", "lower"): (
        "at the left lung base",
        "at the left lower lobe",
        "in the left lower lung zone",
    ),
    ("right", "upper"): (
        "at the right upper lobe",
        "in the right upper lung zone",
        "at the right apex",
    ),
    ("right", "mid"): (
        "in the right mid lung zone",
        "at the right lung zone",
        "in the middle lobe",
    ),
    ("right", "lower"): (
        "at the right lung base",
        "at the right lower lobe",
        "in the right lower lung zone",
    ),
    ("bilateral", "upper"): ("at the upper lung zone bilaterally", "in both upper lobes"),
    ("bilateral", "mid"): ("at the mid lung zone bilaterally", "in both mid lung zones"),
    ("bilateral", "lower"): (
        "at the lung bases",
        "at the bilateral lung bases",
        "in both lower lobes",
        "at the lower lung zone bilaterally",
    ),
    ("left", ""): ("in the left lung", "on the left"),
    ("right", ""): ("in the right lung", "on the right"),
}

_HEART_MILD = (
    (
        "Cardiac silhouette size is mildly enlarged.",
        "Heart size is borderline enlarged.",
        "Mildly enlarged cardiac silhouette.",
        "Mildly prominent cardiac silhouette.",
        "Heart size is at the upper limits of normal, consistent with mild cardiomegaly.",
        "Heart size remains mildly enlarged.",
        "There is mild cardiomegaly.",
    ),
    (
        "Mild cardiomegaly.",
        "Mildly enlarged cardiac silhouette.",
        "Heart size is borderline enlarged.",
        "Cardiac silhouette size is mildly enlarged.",
        "Mild cardiomegaly which is unchanged.",
    ),
)
_HEART_LARGE = (
    (
        "There is {size} cardiomegaly.",
        "The heart is {size}ly enlarged.",
        "The cardiac silhouette is {size}ly enlarged.",
        "Persistent {size} cardiomegaly.",
        "Redemonstration of {size} cardiomegaly.",
        "Enlarged heart, likely left ventricular enlargement.",
    ),
    (
        "{size} cardiomegaly.",
        "{trend} cardiomegaly.",
        "Enlarged cardiac silhouette.",
        "Cardiomegaly with prominent upper lobe vessels.",
        "Portable view of the chest demonstrates {size} cardiomegaly.",
    ),
)
_EDEMA = (
    (
        "There is {size} pulmonary edema.",
        "{size} pulmonary interstitial edema is present.",
        "Perihilar haze and indistinct vessels reflect {size} pulmonary edema.",
        "Vascular congestion with {size} interstitial edema.",
        "{size} bilateral pulmonary edema is {trend} seen.",
    ),
    (
        "{size} pulmonary edema.",
        "{size} pulmonary interstitial edema.",
        "{trend} {size} interstitial edema.",
        "{size} interstitial pulmonary edema with vascular congestion.",
    ),
)
_EFFUSION = (
    (
        "There is a {size} {side} pleural effusion.",
        "A {size} {side} pleural effusion is present.",
        "{size} {side} pleural effusion blunts the costophrenic angle.",
        "{trend} {size} {side} pleural effusion.",
        "Layering {size} {side} pleural effusion, partly subpulmonic.",
    ),
    (
        "{size} {side} pleural effusion.",
        "{trend} {size} {side} pleural effusion.",
        "{side} pleural effusion, {size}.",
        "{size} {side} subpulmonic pleural effusion.",
    ),
)
_EFFUSIONS = (
    (
        "There are {size} bilateral pleural effusions.",
        "{size} bilateral pleural effusion is present.",
        "{trend} {size} right and left pleural effusions.",
    ),
    (
        "{size} bilateral pleural effusions.",
        "{trend} {size} bilateral pleural effusion.",
        "{size} right and left pleural effusion.",
    ),
)
_ATELECTASIS = (
    (
        "There is {size} atelectasis {where}.",
        "{size} linear atelectasis {where}.",
        "Subsegmental atelectasis is seen {where}.",
        "Bandlike atelectasis {where} with volume loss.",
        "{trend} residual atelectasis {where}.",
        "{size} retrocardiac atelectasis {where}.",
    ),
    (
        "{size} atelectasis {where}.",
        "Linear atelectasis {where}.",
        "{size} subsegmental atelectasis {where}.",
        "{trend} bandlike atelectasis {where}.",
        "Trace atelectasis {where}.",
    ),
)
_ATELECTASES = (
    (
        "There is {size} bibasilar atelectasis.",
        "{size} bibasilar linear atelectasis.",
        "{trend} bibasilar atelectasis at the bilateral lung bases.",
        "Bandlike atelectasis at the lung bases.",
    ),
    (
        "{size} bibasilar atelectasis.",
        "Bibasilar atelectasis.",
        "{trend} bibasilar atelectasis.",
        "{size} linear atelectasis at the lung bases.",
    ),
)
_CONSOLIDATION = (
    (
        "There is {size} consolidation {where}.",
        "Patchy consolidation {where}.",
        "{size} airspace consolidation is seen {where}.",
        "{trend} {size} consolidation {where}.",
        "Partial consolidation {where} with air bronchograms.",
        "{size} reticular consolidation {where}.",
    ),
    (
        "{size} consolidation {where}.",
        "Patchy consolidation {where}.",
        "Airspace consolidation {where}.",
        "{trend} {side} consolidation {where}.",
        "Appearance of {size} consolidation {where}.",
    ),
)
_PNEUMOTHORAX = (
    (
        "There is a {size} {side} apical pneumothorax.",
        "A {size} {side} pneumothorax is present.",
        "{size} {side} pneumothorax with a visible pleural line.",
    ),
    ("{size} {side} pneumothorax.", "{size} {side} apical pneumothorax."),
)
_LESION = (
    (
        "There is a {size} {where}.",
        "A rounded {size} is seen {where}.",
        "A well defined {size} projects {where}.",
    ),
    ("{size} {where}.", "Solitary {size} {where}, CT is recommended."),
)
_FRACTURE = (
    (
        "There is a displaced fracture of the {side} {rib} rib.",
        "{side} {rib} rib fracture.",
        "Acute fracture of the lateral {side} {rib} rib.",
    ),
    ("{side} {rib} rib fracture.", "Fracture of the {side} {rib} rib."),
)
_PLEURA = (
    (
        "There is {side} pleural thickening.",
        "Pleural thickening along the {side} lateral chest wall.",
    ),
    ("{side} pleural thickening.",),
)
_FOREIGN = (
    (
        "Radiopaque objects overlie the chest.",
        "Foreign objects project over the thorax.",
        "External metallic objects are seen.",
    ),
    ("Foreign objects overlying the chest.",),
)
_DEVICES: Mapping[str, tuple[Texts, Texts]] = {
    "tube": (
        (
            "An endotracheal tube terminates above the carina.",
            "The endotracheal tube is in standard position.",
            "Endotracheal tube ends in the mid trachea.",
        ),
        ("Endotracheal tube in standard position.",),
    ),
    "line": (
        (
            "A {side} central venous catheter terminates in the superior vena cava.",
            "{side} picc line ends at the cavoatrial junction.",
            "A {side} internal jugular line is in place.",
        ),
        ("{side} central venous catheter in place.",),
    ),
    "generator": (
        (
            "A {side} pacemaker is in place with leads in the right ventricle.",
            "{side} chest wall pacemaker device is again seen.",
        ),
        ("{side} pacemaker in place.",),
    ),
    "leads": (
        (
            "Monitoring leads overlie the chest.",
            "External monitoring leads are present.",
        ),
        ("Monitoring leads overlie the chest.",),
    ),
}
_OPAQUE = (
    (
        "Patchy opacity {where} consistent with consolidation.",
        "Airspace opacity and consolidation {where}.",
    ),
    ("Consolidation and opacity {where}.", "Airspace opacity {where} with consolidation."),
)
_PNEUMONIA = (
    (
        "{size} consolidation {where} concerning for pneumonia.",
        "Consolidation {where} compatible with pneumonia.",
    ),
    ("Pneumonia with consolidation {where}.", "{size} consolidation {where}, pneumonia."),
)
WIDENED: Texts = ("The mediastinum is widened.", "Widened mediastinum.")

COMPLAINTS: Texts = (
    "cough",
    "chest pain",
    "shortness of breath",
    "fever and cough",
    "dyspnea",
    "weakness",
    "altered mental status",
    "fall",
    "hypoxia",
    "preoperative evaluation",
)
TECHNIQUES: Mapping[str, Texts] = {
    "AP": ("Portable AP chest radiograph.", "Single AP view of the chest.", "AP erect chest."),
    "PA": (
        "Chest PA and lateral.",
        "PA and lateral views of the chest.",
        "Two views of the chest.",
    ),
}
COMPARISONS: Texts = ("None.", "None.", "Chest radiograph ___.", "___.", "Radiographs from ___.")

_SIZES: Mapping[str, tuple[str, ...]] = {
    "Cardiomegaly": ("mild", "moderate", "severe"),
    "Edema": ("mild", "moderate", "severe"),
    "Pleural Effusion": ("small", "moderate", "large"),
    "Pneumothorax": ("small", "moderate", "large"),
    "Atelectasis": ("minimal", "mild", "moderate"),
    "Consolidation": ("patchy", "focal", "dense"),
    "Lung Lesion": ("nodule", "nodule", "mass"),
}


def size_word(label: str, severity: float) -> str:
    """The word for a severity in [0, 1], "" for findings without degrees."""
    words = _SIZES.get(label)
    return words[min(int(severity * 3), 2)] if words else ""


def positives(label: str, kind: str, severity: float) -> tuple[Texts, Texts]:
    """Wordings of a positive finding: for the findings section, for the impression."""
    if label == "Support Devices":
        return _DEVICES[kind]
    if label == "Cardiomegaly":
        return _HEART_MILD if severity < 1 / 3 else _HEART_LARGE
    return {
        "Edema": _EDEMA,
        "Pleural Effusion": _EFFUSION,
        "Atelectasis": _ATELECTASIS,
        "Consolidation": _CONSOLIDATION,
        "Pneumothorax": _PNEUMOTHORAX,
        "Lung Lesion": _LESION,
        "Fracture": _FRACTURE,
        "Pleural Other": _PLEURA,
        "Foreign Object": _FOREIGN,
    }[label]


def both_sides(label: str) -> tuple[Texts, Texts] | None:
    """Wordings for both sides at once, None where the ordinary ones serve."""
    return {"Pleural Effusion": _EFFUSIONS, "Atelectasis": _ATELECTASES}.get(label)


def opaque_wording(kind: str) -> tuple[Texts, Texts]:
    """Wordings of consolidation that name an opacity, or pneumonia where that is its kind."""
    return _PNEUMONIA if kind == "pneumonia" else _OPAQUE


def every_text() -> Iterator[str]:
    """Every wording and slot value, for the vocabulary."""
    pairs: list[tuple[Texts, Texts]] = [
        _HEART_MILD,
        _HEART_LARGE,
        _EDEMA,
        _EFFUSION,
        _EFFUSIONS,
        _ATELECTASIS,
        _ATELECTASES,
    ]
    pairs += [_CONSOLIDATION, _PNEUMOTHORAX, _LESION, _FRACTURE, _PLEURA, _FOREIGN]
    pairs += [_OPAQUE, _PNEUMONIA, *_DEVICES.values()]
    groups: list[Texts] = [texts for pair in pairs for texts in pair]
    groups += [WIDENED, COMPLAINTS, COMPARISONS, TRENDS, *PLACES.values(), *UNCERTAIN.values()]
    groups += [
        *TECHNIQUES.values(),
        *_SIZES.values(),
        *(g for n in NEGATIONS.values() for g in n[1:]),
    ]
    for texts in groups:
        for text in texts:
            for slot in ("{side}", "{where}", "{size}", "{trend}", "{rib}"):
                text = text.replace(slot, "")
            yield text
    yield "mildly moderately severely fifth sixth seventh eighth year old man woman"
    yield "no acute cardiopulmonary process the examination is unremarkable final report synthetic"
    yield "phantom study addendum impression technique indication portable"
    yield "findings were discussed with dr"
