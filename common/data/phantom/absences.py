"""What a report says of findings that are absent or doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Texts = Sequence[str]

UNCERTAIN: Mapping[str, Texts] = {
    "Cardiomegaly": ("Possible mild cardiomegaly.", "The heart may be enlarged."),
    "Edema": ("Possible {size} pulmonary edema.", "Findings may represent {size} edema."),
    "Pleural Effusion": (
        "A {size} {side} pleural effusion cannot be excluded.",
        "Possible {size} {side} pleural effusion.",
    ),
    "Atelectasis": (
        "Possible {size} atelectasis {where}.",
        "This may represent atelectasis {where}.",
    ),
    "Consolidation": (
        "Possible {size} consolidation {where}.",
        "Consolidation {where} cannot be excluded.",
    ),
    "Pneumothorax": ("Possible {size} {side} pneumothorax.",),
    "Lung Lesion": ("Possible {size} {where}.",),
    "Fracture": ("Possible {side} {rib} rib fracture.",),
    "Pleural Other": ("Possible {side} pleural thickening.",),
    "Foreign Object": ("Possible foreign object overlying the chest.",),
}

NEGATIONS: Mapping[str, tuple[float, Texts, Texts]] = {
    "Pleural Effusion": (
        0.8,
        (
            "There is no pleural effusion.",
            "No pleural effusion.",
            "No evidence of pleural effusion.",
            "The costophrenic angles are sharp without effusion.",
        ),
        ("A trace pleural effusion cannot be excluded.", "Possible tiny pleural effusion."),
    ),
    "Pneumothorax": (
        0.8,
        ("There is no pneumothorax.", "No pneumothorax.", "No evidence of pneumothorax."),
        ("A tiny pneumothorax cannot be excluded.",),
    ),
    "Consolidation": (
        0.6,
        (
            "There is no focal consolidation.",
            "No consolidation.",
            "The lungs have no consolidation.",
        ),
        ("Early consolidation cannot be excluded.",),
    ),
    "Cardiomegaly": (
        0.6,
        (
            "Heart size is normal.",
            "The cardiac silhouette is normal in size.",
            "The heart is not enlarged.",
        ),
        ("The heart may be mildly enlarged.",),
    ),
    "Edema": (
        0.5,
        ("There is no pulmonary edema.", "No pulmonary edema.", "No interstitial edema."),
        ("Minimal edema cannot be excluded.",),
    ),
    "Fracture": (
        0.2,
        ("No acute fracture.", "The osseous structures are intact without fracture."),
        ("A rib fracture cannot be excluded.",),
    ),
    "Atelectasis": (0.1, ("There is no atelectasis.",), ("Possible minimal atelectasis.",)),
    "Lung Lesion": (
        0.1,
        ("No pulmonary nodule or mass.",),
        ("A small nodule cannot be excluded.",),
    ),
    "Support Devices": (
        0.1,
        ("No support devices are seen.", "The lines and tubes have been removed."),
        ("No support devices are seen.",),
    ),
    "Foreign Object": (0.05, ("No foreign object.",), ("Possible foreign object.",)),
    "Pneumonia": (
        0.15,
        ("No evidence of pneumonia.", "No pneumonia."),
        ("Early pneumonia cannot be excluded.",),
    ),
    "Lung Opacity": (0.1, ("No focal opacity.",), ("Possible faint opacity at the lung bases.",)),
    "Enlarged Cardiomediastinum": (
        0.15,
        ("The mediastinal contours are normal.", "The mediastinal silhouette is unremarkable."),
        ("The mediastinal contours may be widened.",),
    ),
}
"""Probability of mention where absent, wordings, uncertain wordings."""
