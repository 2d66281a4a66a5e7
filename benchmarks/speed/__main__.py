"""`make speed`: what the design saves, as ratios measured in one run against plain loops.

Every pair is timed alternately, best of several; only the ratio carries over to another machine.
`python -m benchmarks.speed mgca` measures one paper.
"""

from __future__ import annotations

import os
import sys

import torch
from tqdm.auto import tqdm

from benchmarks.speed import gloria, imitate, lrclr, maco, mgca
from common.provenance import provenance

PAPERS = {
    "gloria": gloria.jobs,
    "mgca": mgca.jobs,
    "maco": maco.jobs,
    "imitate": imitate.jobs,
    "lrclr": lrclr.jobs,
}


def main() -> None:
    """Measure and print."""
    papers = sys.argv[1:] or list(PAPERS)
    unknown = sorted(set(papers) - set(PAPERS))
    if unknown:
        sys.exit(f"error: unknown paper {unknown}; choose among {', '.join(PAPERS)}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    torch.manual_seed(0)
    facts = provenance()
    print(f"{facts['hardware']}, torch {torch.__version__}, commit {str(facts['commit'])[:12]}")
    for paper in papers:
        for title, job in tqdm(PAPERS[paper](), desc=f"measuring {paper}", file=sys.stderr):
            ratio, note = job()
            tqdm.write(f"{paper:8}{title:50} {ratio:28} {note}", file=sys.stdout)


if __name__ == "__main__":
    main()
