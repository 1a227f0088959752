"""Two ways to train the contestants of a run to the ends of their budgets, with the same records.

In turns: in this process, a few seconds each, so that other work on the machine slows all alike. For wall-clock budgets.
Side by side: each in its own process, with a share of the cores. For budgets of arithmetic or tokens, where time does not matter:
two small models on two cores finish a third sooner than one after the other.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from training.budget import Budget
from training.contestant import Contestant
from training.display import Display
from training.machine import MEMORY_ADVICE, keep_freed_memory, out_of_memory
from training.progress import Progress
from training.run import Run, key
from training.threads import Threads, available_cores


class Interrupt:
    """Ctrl-C, SIGTERM or SIGHUP: remembered, and acted upon when the slice ends. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.remember)

    def remember(self, number: int, frame: object) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


class Unfinished(ValueError):
    """Some contestants failed; the others trained to the end and are saved."""


def race(run: Run, display: Display, interrupt: Interrupt, on_records: Callable[[], None] = lambda: None) -> bool:
    """Train every contestant to the end of its budget. Returns False if interrupted, with all of them saved.

    on_records: called when there are new ones. One that fails takes no other with it. Raises Unfinished, with a sentence for
    each, when the others have ended.
    """
    if (
        run.config.workers != 1
    ):  # also with one contestant left: a worker has its share of the cores, and so the same bits
        return side_by_side(run, run.config.workers or available_cores(), display, interrupt, on_records)
    return in_turns(run, display, interrupt, on_records)


def in_turns(run: Run, display: Display, interrupt: Interrupt, on_records: Callable[[], None]) -> bool:
    """Next is always the contestant that has spent the smallest share of its budget."""
    failed: dict[int, str] = {}
    for contestant in run.contestants:
        with _barrier(run, contestant, failed):
            if not contestant.finished:
                contestant.warm_up()
            run.begin(contestant)
    # Under the other budgets the number of threads stays: results should not depend on what else the machine does.
    by_clock = Budget.parse(run.config.budget).kind == "seconds" and run.device.type == "cpu"
    threads = {id(c): Threads() for c in run.contestants} if by_clock and run.ranks.alone else {}
    while unfinished := [c for c in run.contestants if not c.finished and id(c) not in failed]:
        contestant = min(unfinished, key=lambda c: c.fraction)
        with _barrier(run, contestant, failed):
            if turn(run, contestant, threads.get(id(contestant))) and run.ranks.first:
                run.write_records()
                on_records()
        display.update(contestant)
        if run.ranks.agree(interrupt.asked) and not all(c.finished for c in run.contestants):
            for c in run.contestants:
                with _barrier(run, c, failed):
                    run.save(c)
            return False
    if failed:
        raise Unfinished(_told(run, list(failed.values())))
    return True


@contextlib.contextmanager
def _barrier(run: Run, contestant: Contestant, failed: dict[int, str]) -> Iterator[None]:
    """Around one contestant: an exception is kept as a sentence, with its traceback in errors.log, and does not stop the
    others. Among several ranks it ends the run, since the others wait for this one."""
    try:
        yield
    except Exception as error:
        if not run.ranks.alone:
            raise
        failed.setdefault(
            id(contestant), f"{contestant.label} (seed {contestant.seed}): {explained(error, run.folder)}"
        )


def explained(error: Exception, folder: Path) -> str:
    """An error as one sentence, with advice where memory ran out; its traceback goes to FOLDER/errors.log."""
    with (
        contextlib.suppress(OSError),
        open(folder / "errors.log", "a", encoding="utf-8", errors="backslashreplace") as log,
    ):
        log.write("".join(traceback.format_exception(error)) + "\n")
    if out_of_memory(error):
        return f"out of memory; {MEMORY_ADVICE}."
    sentence = " ".join(str(error).split()) or type(error).__name__
    return (
        sentence if isinstance(error, ValueError | OSError) else f"{sentence} ({type(error).__name__}; see errors.log)"
    )


def _told(run: Run, failed: list[str]) -> str:
    return f"{' '.join(failed)} The others have ended. Continue with --resume {run.folder}."


def turn(run: Run, contestant: Contestant, threads: Threads | None = None) -> bool:
    """A slice of training, then evaluation and saving if they are due. Returns whether there is a new record."""
    due, recorded = run.next_evaluation(contestant), len(contestant.progress.history)
    if threads is not None:

        def rate(seconds: float) -> float:
            contestant.train(seconds, until=due)
            return contestant.last.get("tokens_per_second", 0.0)

        threads.choose(rate)
    if not contestant.finished and contestant.fraction < due:
        contestant.train(run.config.slice_seconds, until=due)
    run.log(contestant, contestant.last)
    if contestant.fraction >= due or contestant.finished:
        run.evaluate(contestant)
    first = (
        not recorded and contestant.progress.history
    )  # what has a record has a checkpoint, however soon it is killed
    if contestant.finished or first or run.save_is_due(contestant):
        run.save(contestant)
    return len(contestant.progress.history) > recorded


def side_by_side(
    run: Run, workers: int, display: Display, interrupt: Interrupt, on_records: Callable[[], None]
) -> bool:
    """Train the most expensive first, so that no worker is left with a long one at the end."""
    context = multiprocessing.get_context("spawn")
    tasks, news, stop = context.Queue(), context.Queue(), context.Event()
    order = sorted(range(len(run.contestants)), key=lambda i: -run.contestants[i].budget.amount)
    open_tasks = {i for i in order if not run.contestants[i].finished}
    threads = max(1, available_cores() // workers)
    workers = min(workers, len(open_tasks))
    for i in [*(i for i in order if i in open_tasks), *[None] * workers]:
        tasks.put(i)
    arguments = (run.folder, threads, tasks, news, stop)
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    failed: dict[int, str] = {}
    lost: set[int | None] = set()

    def hear(wait: float) -> bool:
        """Handle one message of a worker, if one comes in time."""
        try:
            index, told = news.get(timeout=wait)
        except queue.Empty:
            return False
        contestant = run.contestants[index]
        if isinstance(told, str):
            failed[index] = f"{contestant.label} (seed {contestant.seed}): {told}"
            open_tasks.discard(index)
            return True
        evaluated = len(contestant.progress.history)
        contestant.progress, contestant.last = Progress.from_dict(told["progress"]), told["last"]
        if len(contestant.progress.history) > evaluated:
            run.write_records()
            on_records()
        display.update(contestant)
        if contestant.finished:
            open_tasks.discard(index)
        return True

    try:
        while open_tasks and any(p.is_alive() for p in processes):
            if interrupt.asked:
                stop.set()
            hear(0.5)
            for process in [p for p in processes if p.exitcode and p.pid not in lost]:
                lost.add(process.pid)
                code = process.exitcode or 0
                how = f"killed by signal {-code}" if code < 0 else f"ended with {code}"
                display.console.print(
                    f"A worker was {how}; what it trained goes on when the run is resumed.", soft_wrap=True
                )
    finally:
        stop.set()
        for process in processes:
            while process.is_alive():  # an evaluation may be long, and what it ends with is saved
                process.join(1.0)
                hear(0.01)
        while hear(0.2):  # what workers said before they ended
            pass
    for i, contestant in enumerate(run.contestants):
        if i not in failed:
            contestant.restore(run.folder / "checkpoints" / key(contestant))
    if failed:
        raise Unfinished(_told(run, list(failed.values())))
    if open_tasks and not interrupt.asked and not all(p.exitcode == 0 for p in processes):
        raise ValueError(
            f"A worker ended before its time, as it does when memory runs out; what was saved is kept. Continue with "
            f"--resume {run.folder}, or start with fewer --workers."
        )
    return not open_tasks


def _work(folder: Path, threads: int, tasks: Any, news: Any, stop: Any) -> None:
    """Train one contestant after the other and report each slice to the parent. Save and stop when `stop` is set or a signal
    comes. If one fails this is reported, and the next one begins."""
    interrupt = Interrupt()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells everybody; the parent decides
    torch.set_num_threads(threads)
    keep_freed_memory()
    parent = os.getppid()
    while not stop.is_set() and not interrupt.asked and (index := tasks.get()) is not None:
        try:
            run = Run.resume(folder, only=index)
            [contestant] = run.contestants
            contestant.warm_up()
            run.begin(contestant)
            while not contestant.finished:
                turn(run, contestant)
                if os.getppid() != parent:
                    return  # the parent was killed, so this process may no longer write here
                if stop.is_set() or interrupt.asked:
                    run.save(contestant)
                news.put((index, {"progress": contestant.progress.to_dict(), "last": contestant.last}))
                if stop.is_set() or interrupt.asked:
                    break
            run.close()
        except Exception as error:
            news.put((index, explained(error, folder)))
