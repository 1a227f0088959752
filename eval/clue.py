"""CLUE's classification tasks (Xu et al. 2020, arXiv 2004.05986): `python -m eval.clue --checkpoints FOLDER ...` (make clue)."""

import sys

from eval.benchmark import main
from eval.tasks import Task

NEWS = tuple(str(n) for n in (100, 101, 102, 103, 104, 106, 107, 108, 109, 110, 112, 113, 114, 115, 116))
NLI = ("neutral", "entailment", "contradiction")

PAIR, TEXT = ("sentence1", "sentence2"), ("sentence",)


def _task(
    name: str, labels: tuple[str, ...], texts: tuple[str, ...], rows: tuple[int, int, int], file: str = ""
) -> Task:
    folder = name.lower()
    counts, submission = dict(zip(("train", "dev", "test"), rows)), {"test": f"{file or folder}_predict.json"}
    return Task(
        name,
        labels,
        texts,
        "label",
        ("accuracy",),
        folder,
        rows=counts,
        submission=submission,
        hub=("clue/clue", folder),
    )


CLUE = {
    task.name: task
    for task in (
        _task("TNEWS", NEWS, TEXT, (53360, 10000, 10000)),
        _task("AFQMC", ("0", "1"), PAIR, (34334, 4316, 3861)),
        _task("IFLYTEK", tuple(map(str, range(119))), TEXT, (12133, 2599, 2600)),
        _task("CMNLI", NLI, PAIR, (391783, 12241, 13880)),
        _task("OCNLI", NLI, PAIR, (50437, 2950, 3000), "ocnli_50k"),
    )
}

if __name__ == "__main__":
    sys.exit(main(CLUE, "CLUE", __doc__))
