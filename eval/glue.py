"""GLUE (Wang et al. 2019, arXiv 1804.07461): `python -m eval.glue --checkpoints FOLDER ... --data FOLDER` (make glue)."""

import sys
from typing import Any

from eval.finetune.benchmark import main
from eval.finetune.tasks import Task

TWO = ("0", "1")
COLA = ("source", "label", "star", "sentence")
NLI: dict[str, Any] = {"hub_texts": ("premise", "hypothesis")}

THREE = ("entailment", "neutral", "contradiction")
DIAGNOSTIC = Task(
    "AX", THREE, ("sentence1", "sentence2"), "label", ("mcc",), "diagnostic", dev=(),
    test=("diagnostic-full", "diagnostic", "test"), rows={"diagnostic": 1104}, submission={"AX": "AX.tsv"},
    hub=("nyu-mll/glue", "ax"), **NLI, aliases={"Premise": "sentence1", "Hypothesis": "sentence2", "Label": "label"},
)  # fmt: skip

GLUE = {
    task.name: task
    for task in (
        Task("CoLA", TWO, ("sentence",), "label", ("mcc",), headless={"train": COLA, "dev": COLA},
             rows={"train": 8551, "dev": 1043, "test": 1063}, submission={"test": "CoLA.tsv"}, hub=("nyu-mll/glue", "cola")),
        Task("SST-2", TWO, ("sentence",), "label", ("accuracy",),
             rows={"train": 67349, "dev": 872, "test": 1821}, submission={"test": "SST-2.tsv"}, hub=("nyu-mll/glue", "sst2")),
        Task("MRPC", TWO, ("#1 String", "#2 String"), "Quality", ("accuracy", "f1"), hub_texts=("sentence1", "sentence2"),
             rows={"train": 3668, "dev": 408, "test": 1725}, submission={"test": "MRPC.tsv"}, hub=("nyu-mll/glue", "mrpc")),
        Task("STS-B", (), ("sentence1", "sentence2"), "score", ("pearson", "spearman"), form="score", range=(0.0, 5.0),
             rows={"train": 5749, "dev": 1500, "test": 1379}, submission={"test": "STS-B.tsv"}, hub=("nyu-mll/glue", "stsb")),
        Task("QQP", TWO, ("question1", "question2"), "is_duplicate", ("accuracy", "f1"), broken=True,
             rows={"train": 363846, "dev": 40430, "test": 390965}, submission={"test": "QQP.tsv"}, hub=("nyu-mll/glue", "qqp")),
        Task("MNLI", THREE, ("sentence1", "sentence2"), "gold_label", ("accuracy",),
             dev=("dev_matched", "dev_mismatched"), test=("test_matched", "test_mismatched"), **NLI,
             rows={"train": 392702, "dev_matched": 9815, "dev_mismatched": 9832, "test_matched": 9796, "test_mismatched": 9847},
             submission={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"}, hub=("nyu-mll/glue", "mnli"),
             extra=(DIAGNOSTIC,)),
        Task("QNLI", ("entailment", "not_entailment"), ("question", "sentence"), "label", ("accuracy",),
             rows={"train": 104743, "dev": 5463, "test": 5463}, submission={"test": "QNLI.tsv"}, hub=("nyu-mll/glue", "qnli")),
        Task("RTE", ("entailment", "not_entailment"), ("sentence1", "sentence2"), "label", ("accuracy",),
             rows={"train": 2490, "dev": 277, "test": 3000}, submission={"test": "RTE.tsv"}, hub=("nyu-mll/glue", "rte")),
        Task("WNLI", TWO, ("sentence1", "sentence2"), "label", ("accuracy",),
             rows={"train": 635, "dev": 71, "test": 146}, submission={"test": "WNLI.tsv"}, hub=("nyu-mll/glue", "wnli")),
    )
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(GLUE, "GLUE", __doc__))
