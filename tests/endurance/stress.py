"""Kill a race with two workers at random moments, resume it, and compare its end with that of one that nobody disturbed.

python -m tests.endurance.stress [--kills 20] [--seed 0]          (make stress)

Signals: KILL to the whole job (as a power cut), TERM to the whole job (as a scheduler), TERM or HUP to the parent alone. Every
race must end with the same bits of every weight. Prints a line for each kill, and the counts.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[2]
SHAPE = "d_model=64,n_layers=2,n_heads=2"
CONTESTANTS = [f"local:{SHAPE}", f"vanilla:{SHAPE},narrow=1,words=0.5"]
OPTIONS = "--vocab-size 400 --sequence-length 32 --slice-seconds 0.3 --save-seconds 2 --workers 2 --budget 1.5Mtok "
OPTIONS += "--precision fp32 --evaluation.words 64 "
OPTIONS += "--evaluation.tokens 256 --evaluation.curve-tokens 64 --evaluation.positions 8 --evaluation.points 8"


@dataclass(frozen=True)
class Stress:
    kills: int = 20
    seed: int = 0
    each: int = 4
    """Kills of one race, before it is left to end."""


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "pretrain.py", *arguments], cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )


def weights(run: Path) -> dict[str, str]:
    """Of each contestant the digest of its last weights."""
    found = {}
    for folder in sorted((run / "checkpoints").iterdir()):
        newest = max(folder.glob("step-*"))
        found[folder.name] = hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()
    return found


def kill(process: subprocess.Popen, how: str) -> None:
    if how in ("KILL to all", "TERM to all"):
        os.killpg(process.pid, signal.SIGKILL if how.startswith("KILL") else signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM if how.startswith("TERM") else signal.SIGHUP)
    process.wait()
    if how.startswith("KILL"):
        time.sleep(0.5)


def text(path: Path) -> None:
    """A corpus with a little to learn."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(600)]
    documents = [" ".join(draw.choices(words, range(600, 0, -1), k=60)) + "." for _ in range(1_500)]
    path.write_text("\n\n".join(documents) + "\n")


def main(options: Stress) -> int:
    draw, folder = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="stress-"))
    text(folder / "text.txt")
    common = [
        "--corpus",
        str(folder / "text.txt"),
        "--cache",
        str(folder / "cache"),
        "--runs",
        str(folder / "runs"),
        *OPTIONS.split(),
    ]
    log = folder / "log"
    whole = start([*common, "--name", "whole", "--architectures", *CONTESTANTS], log)
    if whole.wait():
        print(log.read_text())
        return 1
    expected, done, wrong, race = weights(folder / "runs" / "whole"), 0, 0, 0
    while done < options.kills:
        race += 1
        run = folder / "runs" / f"race{race}"
        process = start([*common, "--name", run.name, "--architectures", *CONTESTANTS], log)
        for _ in range(min(options.each, options.kills - done)):
            wait = draw.uniform(2.0, 14.0)
            how = draw.choice(["KILL to all", "TERM to all", "TERM to the parent", "HUP to the parent"])
            try:
                process.wait(wait)
                print(f"race {race}: it ended before its next kill", flush=True)
                break
            except subprocess.TimeoutExpired:
                kill(process, how)
            done += 1
            print(f"kill {done}: race {race}, {how} after {wait:.1f} s, exit {process.returncode}", flush=True)
            begun = (run / "run.json").exists()
            again = ["--resume", str(run)] if begun else [*common, "--name", run.name, "--architectures", *CONTESTANTS]
            process = start(again, log)
        code = process.wait()
        same = code == 0 and weights(run) == expected
        wrong += not same
        print(f"race {race}: ended with {code}, {'the same bits' if same else 'OTHER BITS'}", flush=True)
    print(f"{done} kills in {race} races: {race - wrong} ended with the same bits, {wrong} did not")
    if wrong:
        print(f"Log: {log}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Stress, description=__doc__)))
