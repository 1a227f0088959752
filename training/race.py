"""Two ways to train the contestants of a run to the ends of their budgets, with the same records at the end.

In turns: in this process, a few seconds each, so that whatever else the machine does hits all alike. For wall-clock.
Side by side: in processes of their own, with a share of the cores each. For budgets of arithmetic or tokens, where time
decides nothing: two small models on two cores finish a third sooner than one after the other.
"""

import multiprocessing
import os
import queue
import signal
from pathlib import Path
from typing import Any

import torch

from training.budget import Budget
from training.contestant import Contestant, Progress
from training.display import Display
from training.machine import keep_freed_memory
from training.run import Run, key
from training.threads import Threads, available_cores


class Interrupt:
    """Ctrl-C or SIGTERM: remembered, and acted upon when the slice ends. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.remember)

    def remember(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def race(run: Run, display: Display, interrupt: Interrupt) -> bool:
    """Train every contestant to the end of its budget. Returns False if interrupted, with all of them saved."""
    workers = min(run.config.workers or available_cores(), sum(not c.finished for c in run.contestants))
    if workers > 1:
        return side_by_side(run, workers, display, interrupt)
    return in_turns(run, display, interrupt)


def in_turns(run: Run, display: Display, interrupt: Interrupt) -> bool:
    """Whoever has spent the smallest share of its budget is next."""
    for contestant in run.contestants:
        if not contestant.finished:
            contestant.warm_up()
        run.begin(contestant)
    # Under the other budgets the number of threads stays: results should not depend on what else the machine does.
    by_clock = Budget.parse(run.config.budget).kind == "seconds" and run.device.type == "cpu"
    threads = {id(c): Threads() for c in run.contestants} if by_clock else {}
    while unfinished := [c for c in run.contestants if not c.finished]:
        contestant = min(unfinished, key=lambda c: c.fraction)
        if turn(run, contestant, threads.get(id(contestant))):
            run.write_records()
        display.update(contestant)
        if interrupt.asked and not all(c.finished for c in run.contestants):
            for c in run.contestants:
                run.save(c)
            return False
    return True


def turn(run: Run, contestant: Contestant, threads: Threads | None = None) -> bool:
    """A slice of training, and what is due after it. Returns whether there is a new record."""
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
    if contestant.finished or run.save_is_due(contestant):
        run.save(contestant)
    return len(contestant.progress.history) > recorded


def side_by_side(run: Run, workers: int, display: Display, interrupt: Interrupt) -> bool:
    """The most expensive first, so that no worker is left with a long one at the end."""
    context = multiprocessing.get_context("spawn")
    tasks, news, stop = context.Queue(), context.Queue(), context.Event()
    order = sorted(range(len(run.contestants)), key=lambda i: -run.contestants[i].budget.amount)
    open_tasks = {i for i in order if not run.contestants[i].finished}
    for i in [*(i for i in order if i in open_tasks), *[None] * workers]:
        tasks.put(i)
    threads = max(1, available_cores() // workers)
    arguments = (run.folder, threads, tasks, news, stop)
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        while open_tasks and any(p.is_alive() for p in processes):
            if interrupt.asked:
                stop.set()
            try:
                index, told = news.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(told, str):
                raise ValueError(told)
            contestant = run.contestants[index]
            evaluated = len(contestant.progress.history)
            contestant.progress, contestant.last = Progress.from_dict(told["progress"]), told["last"]
            if len(contestant.progress.history) > evaluated:
                run.write_records()
            display.update(contestant)
            if contestant.finished:
                open_tasks.discard(index)
    finally:
        stop.set()
        for process in processes:
            process.join(60)
            process.kill()
    if open_tasks and not interrupt.asked:
        raise ValueError(
            f"A worker ended before its time, as it does when memory runs out; what was saved is kept. Continue with "
            f"--resume {run.folder}, or start with fewer --workers."
        )
    for contestant in run.contestants:
        contestant.restore(run.folder / "checkpoints" / key(contestant))
    return not open_tasks


def _work(folder: Path, threads: int, tasks: Any, news: Any, stop: Any) -> None:
    """Train one contestant after the other, telling the parent of each slice; saved and silent once `stop` is set."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells everybody; the parent decides
    torch.set_num_threads(threads)
    keep_freed_memory()
    parent = os.getppid()
    while (index := tasks.get()) is not None and not stop.is_set():
        try:
            run = Run.resume(folder, only=index)
            [contestant] = run.contestants
            contestant.warm_up()
            run.begin(contestant)
            while not contestant.finished:
                turn(run, contestant)
                news.put((index, {"progress": contestant.progress.to_dict(), "last": contestant.last}))
                if os.getppid() != parent:
                    return  # the parent was killed, and with it the right to write here
                if stop.is_set():
                    run.save(contestant)
                    break
            run.close()
        except (ValueError, OSError, RuntimeError) as error:
            news.put((index, str(error)))
            return
