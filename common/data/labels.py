"""Named policies that turn four label states into targets."""

from __future__ import annotations

import numpy as np
import pandas as pd

CHEXPERT_14 = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""What the CheXpert labeller finds, in the order of CheXpert's tables."""

COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five CheXpert competition findings, in GLoRIA's order."""

CHEXPERT_MIXED = {
    "Atelectasis": 1.0,
    "Cardiomegaly": 0.0,
    "Consolidation": 0.0,
    "Edema": 1.0,
    "Pleural Effusion": 1.0,
}
"""Where an uncertain label goes in GLoRIA's and MGCA's released code."""

POLICIES = ("u_zeros", "u_ones", "u_ignore", "chexpert_mixed")


def apply_policy(labels: pd.DataFrame, policy: str) -> pd.DataFrame:
    """Targets in {0, 1}, or NaN where `u_ignore` leaves an uncertain label out of the loss.

    Blank becomes 0 in every policy, as in the papers' code; uncertain (-1) becomes 0 (`u_zeros`),
    1 (`u_ones`), NaN (`u_ignore`) or `CHEXPERT_MIXED` by column (`chexpert_mixed`).

    Raises:
        ValueError: If the policy is unknown, or `chexpert_mixed` meets a column it does not rule.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown label policy {policy!r}; choose one of {', '.join(POLICIES)}")
    targets = labels.astype("float32").fillna(0.0)
    for name in targets.columns:
        if policy == "chexpert_mixed":
            if name not in CHEXPERT_MIXED:
                raise ValueError(f"chexpert_mixed has no rule for {name!r}; name another policy")
            value = CHEXPERT_MIXED[str(name)]
        else:
            value = {"u_zeros": 0.0, "u_ones": 1.0, "u_ignore": np.nan}[policy]
        targets[name] = targets[name].where(targets[name] != -1.0, value)
    return targets
