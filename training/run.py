"""A run on disk: its folder, its contestants, what was measured, and how it is resumed.

runs/NAME/  run.json        the PretrainConfig
            facts.json      corpus, tokenizer, yardstick, and each contestant's size and arithmetic
            results.jsonl   one line for each evaluation of each contestant
            examples.json   masked held-out text and what each model would write there
            report.html, report.md, report.png
            checkpoints/CONTESTANT/step-*/
            tensorboard/CONTESTANT/
            .lock           held by the process that trains
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import time
import urllib.parse
from pathlib import Path
from typing import Any

from data.files import held, to_json, user_path, write_atomically
from data.prepare import PreparedCorpus, prepare
from data.text import parsed, read_lines
from data.words import Words
from model import MaskedLM
from training import checkpoint
from training.config import PretrainConfig
from training.contestant import Contestant
from training.entry import Entry
from training.facts import facts_of
from training.leave_one_out import Yardstick
from training.machine import Machine
from training.making import make_contestant, resolve_device
from training.progress import Progress
from training.ranks import ALONE, Ranks
from training.sampling import Batches, Part, held_out_windows
from training.scalars import Scalars
from training.sharding import gathered
from training.warm_start import WarmStart, warm_start
from training.whole_words import WholeWords


class Run:
    """Everything a race needs, ready to train: fresh, or continued from its folder.

    One process at a time holds a run: it has the lock until `close`. A worker of that process opens it with `only`, the
    index of the one contestant that it trains, and without the lock.
    """

    def __init__(self, config: PretrainConfig, folder: Path, *, only: int | None = None, ranks: Ranks = ALONE) -> None:
        self.config, self.folder, self.ranks = config, folder, ranks
        self.device = resolve_device(config.device)
        self.corpus: PreparedCorpus = prepare(config.data)
        self.tokenizer = self.corpus.tokenizer
        self.notes = list(self.corpus.notes)  # what a user should know, a sentence each
        evaluation = config.evaluation
        if not self.corpus.valid.middle()[1]:
            self.notes.append(
                "The held-out text is cut into its dev and test halves inside a document, since halves of whole documents "
                "would be lopsided: the two share that document."
            )
        self.dev, self.dev_words = self._yardstick("dev", evaluation.tokens)
        self.test, self.test_words = self._yardstick("test", evaluation.tokens)
        self.contestants = [
            make_contestant(
                config,
                Entry.parse(text),
                seed,
                self.device,
                vocab_size=self.tokenizer.vocab_size,
                mask_id=self.tokenizer.mask_id,
                batches=self._batches,
                ranks=ranks,
            )
            for i, (seed, text) in enumerate((s, a) for s in config.seeds for a in config.architectures)
            if only is None or i == only
        ]
        self.warm_starts: dict[str, WarmStart] = {}
        for contestant in self.contestants:
            contestant.identity = self.identity()
            own = folder / "checkpoints" / key(contestant)
            if contestant.entry.init and checkpoint.last_good(own)[0] is None:  # else it goes on from its own
                begun = warm_start(contestant.model, contestant.entry.init, self.tokenizer)
                self.warm_starts[contestant.label] = begun
                if only is None:
                    self.notes.append(f"{contestant.label} {begun}.")
        if self.test_words is not None:
            plain = {c.label for c in self.contestants if not c.model.architecture.hides_words}
            self.notes += [
                f"{label} cannot hide whole words, so that it is measured on tokens alone." for label in sorted(plain)
            ]
        self.machine = Machine.here(self.device)
        self.scalars = Scalars(config.track, json.loads(config.to_json()))
        self.saved_at = {key(c): time.monotonic() for c in self.contestants}
        self.lock = contextlib.ExitStack()

    @classmethod
    def start(cls, config: PretrainConfig, ranks: Ranks = ALONE) -> "Run":
        """A new folder, this process's own. Raises ValueError if a run is there already."""
        corpus = re.sub(r"[^\w.-]+", "-", Path(config.data.corpus).name or config.data.corpus).strip("-")
        name = config.name or f"{corpus}-{config.budget}-{time.strftime('%Y%m%d-%H%M%S')}"
        runs = user_path(config.runs)
        taken = f"{runs / name} holds a run already; continue it with --resume {runs / name}, or choose "
        taken += "another --name."
        if config.name and (runs / name / "run.json").exists():
            raise ValueError(taken)
        run = cls(config, runs / name, ranks=ranks)  # nothing is written before everything given has been checked
        for again in range(1, 1000):
            try:
                run.folder.mkdir(parents=True)
                break
            except FileExistsError:
                if config.name:  # made meanwhile, or before by hand: whoever gets the lock first has it
                    break
                run.folder = runs / f"{name}-{again + 1}"
        run.hold()
        if (run.folder / "run.json").exists():
            run.close()
            raise ValueError(taken)
        run.write_facts()
        write_atomically(run.folder / "run.json", config.to_json())
        return run

    @classmethod
    def resume(cls, folder: Path, only: int | None = None, ranks: Ranks = ALONE) -> "Run":
        """Continue from the newest whole checkpoints. Raises FileNotFoundError or ValueError if there is no run."""
        config = PretrainConfig.load(folder)
        run = cls(config, folder, only=only, ranks=ranks)
        leads = only is None and ranks.first
        if leads:
            run.hold()
        run._check_same_corpus()
        known = run._recorded() if leads else set()
        for contestant in run.contestants:
            damaged = contestant.restore(folder / "checkpoints" / key(contestant))
            if not contestant.progress.step and (contestant.label, contestant.seed) in known:
                raise ValueError(
                    f"{folder / 'results.jsonl'} holds records of {contestant.label} (seed {contestant.seed}), and no checkpoint "
                    "of it is left; bring it back, or start a new run."
                )
            run.notes += [f"{sentence} Going on from the checkpoint before it." for sentence in damaged]
        if leads:
            run.write_facts()
        return run

    def _recorded(self) -> set[tuple[str, int]]:
        """Contestants of which there are records."""
        path = self.folder / "results.jsonl"
        lines = read_lines(path) if path.exists() else []
        records = [
            parsed(line, f"{path}, line {n}", file_names=True) for n, line in enumerate(lines, start=1) if line.strip()
        ]
        return {
            (r["contestant"], r["seed"]) for r in records if isinstance(r, dict) and {"contestant", "seed"} <= set(r)
        }

    def saved(self, contestant: Contestant) -> bool:
        """Whether its state is now in a whole checkpoint. One that has not begun, or has diverged, has no state to save."""
        folder = self.folder / "checkpoints" / key(contestant)
        progress = contestant.progress
        return (
            not progress.step
            or progress.diverged is not None
            or checkpoint.is_whole(folder / f"step-{progress.step:08d}")
        )

    def hold(self) -> None:
        """Take the lock. Raises ValueError if another process trains in this folder."""
        sentence = f"{self.folder} is being trained by another process; wait for its end, or stop it first."
        self.lock.enter_context(held(self.folder / ".lock", sentence))

    def identity(self) -> dict[str, str]:
        """What must not change before a run is resumed: the bytes of the corpus, how it is read, the tokenizer."""
        return {"prepared": self.corpus.key, "tokenizer": self.tokenizer.hash[:12]}

    def _check_same_corpus(self) -> None:
        path = self.folder / "facts.json"
        try:
            before = json.loads(path.read_text())["identity"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not say which corpus the run began with ({error}); bring the file back, or start a new run."
            ) from error
        changed = [name for name, value in self.identity().items() if before.get(name) != value]
        if changed:
            raise ValueError(
                f"The corpus {self.config.data.corpus} is not what it was when {self.folder} began (another "
                f"{' and '.join({'prepared': 'text', 'tokenizer': 'tokenizer'}[name] for name in changed)}); bring the "
                "old text back, or start a new run."
            )

    def _yardstick(self, part: Part, tokens: int) -> tuple[Yardstick, WholeWords | None]:
        """With as many tokens and words as were asked for. If the held-out text has fewer, a note says so."""
        evaluation, valid = self.config.evaluation, self.corpus.valid
        windows = -(-tokens // evaluation.positions)
        held_out = held_out_windows(valid, self.config.sequence_length, part, windows, evaluation.seed)
        special, starts = self.tokenizer.special_ids, self.tokenizer.starts_word
        found = Yardstick.sample(held_out, special, evaluation.positions, evaluation.seed, starts)
        if found.scored < tokens:
            self.notes.append(
                f"The held-out text has {len(found.tokens)} {part} windows of {self.config.sequence_length} tokens with "
                f"at least {found.positions.shape[1]} ordinary tokens each: models are scored on {found.scored:,} of them, "
                f"not on the {tokens:,} asked for. More text, or a larger --held-out, gives more certain numbers."
            )
        words = None
        if evaluation.words:
            words = WholeWords.sample(held_out, self.tokenizer, evaluation.words, evaluation.seed)
        return found, words

    def _batches(self, model: MaskedLM, seed: int) -> Batches:
        config = self.config
        words = Words(self.tokenizer.starts_word, self.tokenizer.special_ids)
        masking, hiding = model.architecture.masking, model.architecture.hiding
        return Batches(self.corpus.train, config.batch_size, config.sequence_length, seed, masking, words, hiding)

    def begin(self, contestant: Contestant) -> None:
        """Note the machine on which it trains from now on."""
        if not contestant.finished:
            processes = {} if self.ranks.alone else {"processes": self.ranks.world}
            session = {"step": contestant.progress.step, **dataclasses.asdict(self.machine), **processes}
            contestant.progress.sessions.append(session)

    def save(self, contestant: Contestant) -> None:
        contestant.save(self.folder / "checkpoints" / key(contestant), self.tokenizer.model)
        self.saved_at[key(contestant)] = time.monotonic()

    def save_is_due(self, contestant: Contestant) -> bool:
        return bool(self.ranks.agree(time.monotonic() - self.saved_at[key(contestant)] >= self.config.save_seconds))

    def next_evaluation(self, contestant: Contestant) -> float:
        """The share of the budget at which this contestant is evaluated next."""
        fractions = self.config.evaluation.fractions()
        return fractions[min(contestant.progress.evaluated, len(fractions) - 1)]

    def evaluate(self, contestant: Contestant) -> None:
        """Score on the curve's positions, at the end on all of dev and test, and add the record to the history.

        Rank 0 does it; the others wait for the result.
        """
        model = gathered(contestant.model)
        if self.ranks.first:
            self._evaluate(contestant, model)
        contestant.progress = Progress.from_dict(self.ranks.share(contestant.progress.to_dict()))

    def _evaluate(self, contestant: Contestant, model: MaskedLM) -> None:
        evaluation, progress = self.config.evaluation, contestant.progress
        scores: dict[str, Any] = dict.fromkeys(("curve", "dev", "final", "dev_words", "words"))
        if progress.diverged is None:
            with contestant.precision():
                scores["curve"] = self.dev.first(evaluation.curve_tokens).measure(model)
                if contestant.finished:
                    scores["dev"], scores["final"] = (y.measure(model) for y in (self.dev, self.test))
                    for name, words in (("dev_words", self.dev_words), ("words", self.test_words)):
                        scores[name] = words.measure(model) if words and model.architecture.hides_words else None
            if not all(math.isfinite(s.nll) for name, s in scores.items() if s and not name.endswith("words")):
                contestant.diverge()
                scores = dict.fromkeys(scores)
        spent = progress.spent
        record = {
            "contestant": contestant.label,
            "architecture": contestant.entry.architecture,
            "seed": contestant.seed,
            "step": progress.step,
            "seconds": spent.seconds,
            "flops": spent.flops,
            "tokens": spent.tokens,
            "predicted_tokens": spent.predicted,
            **contestant.last,
            "diverged": progress.diverged,
            "suspended": progress.suspended,
            "sessions": progress.sessions,
            **{name: dataclasses.asdict(score) if score else None for name, score in scores.items()},
        }
        progress.history.append(record)
        while progress.evaluated < evaluation.points and self.next_evaluation(contestant) <= contestant.fraction:
            progress.evaluated += 1
        if scores["curve"] is not None:
            self.log(contestant, {"leave_one_out": scores["curve"].nll, "accuracy": scores["curve"].accuracy})

    def write_records(self) -> None:
        records = [to_json(record) for c in self.contestants for record in c.progress.history]
        write_atomically(self.folder / "results.jsonl", "\n".join(records) + "\n")

    def log(self, contestant: Contestant, scalars: dict[str, float]) -> None:
        if self.ranks.first:
            self.scalars.log(self.folder, key(contestant), scalars, contestant.progress.step)

    def write_facts(self) -> None:
        """What the report says beside the results."""
        write_atomically(self.folder / "facts.json", to_json(facts_of(self), indent=2))

    def gather(self) -> None:
        """Whole models for rank 0, once all have ended; every rank calls it."""
        for contestant in self.contestants:
            contestant.model = gathered(contestant.model)

    def close(self) -> None:
        for contestant in self.contestants:
            contestant.parallel = None
        self.scalars.close()
        self.lock.close()


def key(contestant: Contestant) -> str:
    """A contestant's folder name; no two contestants share one."""
    return folder_name(contestant.label, contestant.seed)


def folder_name(label: str, seed: int) -> str:
    name = urllib.parse.quote(label, safe="=,+._-").replace("%3A", "@")
    if len(name) > 150:
        name = f"{name[:130]}~{hashlib.sha256(label.encode()).hexdigest()[:16]}"
    return f"{name}-seed{seed}"
