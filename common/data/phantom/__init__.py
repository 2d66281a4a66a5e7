"""The phantom corpus: synthetic chest radiographs with reports, boxes and masks, of no patient.

`world` draws what a study is, `render` its pixels, `reports` its text; `writers` lays studies out
on disk as each real data set does, `faults` damages a copy in the ways that downloads get damaged.
Importing this package is cheap: it names the vocabulary and nothing else.
"""

from pathlib import Path

VOCABULARY = Path(__file__).parent / "vocab.txt"
"""Word pieces of the phantom's reports; see `reports.build_vocabulary`."""
NAMED = (
    *("Cardiomegaly", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Fracture", "Support Devices"),
)
"""CheXpert's labels whose names the reports use; the others stand there in other words."""
