"""Keeps a generator busy while many examples wait for their steps.

The machines of all examples run in one thread. Requests stand in a queue from which the
generator's own threads take them, and the queue always holds some: a thread that has its reply
finds the next request at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event, Thread

from rnr_kernels.roles.judge import Judge
from rnr_kernels.roles.pipeline.asks import Ask, Generator, Reply
from rnr_kernels.roles.pipeline.journal import Heard, Journal
from rnr_kernels.roles.pipeline.outcome import Outcome
from rnr_kernels.roles.pipeline.steps import Judgement, Machine

QUEUED = 2
"""Requests that are out or in the queue, times those that a generator takes at once."""
LEAST_OPEN = 64
MOST_FAILURES = 32
"""Requests in a row without a reply, after all their tries, until the run ends."""
LAST_REPLIES = 30.0
"""Seconds that a run which ends early waits for replies that are on their way."""


@dataclass
class _Open:
    """An example that is being made."""

    index: int
    machine: Machine
    num_heard: int = 0


@dataclass(frozen=True)
class _Task:
    opened: _Open
    request: Ask | Judgement

    @property
    def step(self) -> str:
        return self.request.step if isinstance(self.request, Ask) else "judge"


_Result = tuple[_Task, Heard] | BaseException


class Scheduler:
    """Runs machines over one generator, one judge and one journal."""

    def __init__(self, generator: Generator, judge: Judge | None, journal: Journal) -> None:
        self._generator = generator
        self._judge = judge
        self._journal = journal
        self._stopped = Event()
        self._results: SimpleQueue[_Result] = SimpleQueue()
        self._to_generator: SimpleQueue[_Task | None] = SimpleQueue()
        self._to_judge: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._num_at_generator = 0
        self._num_open = 0
        self._failed: list[tuple[_Task, Reply]] = []

    def run(
        self,
        machines: Iterator[tuple[int, Machine]],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Runs all to their ends.

        Raises what the generator or the judge raises, and ConnectionError after `MOST_FAILURES`
        requests in a row without a reply, or where none has had any. What has been heard by then is
        in the journal.
        """
        at_once = self._generator.in_flight * self._generator.batch_size
        most_queued, most_open = QUEUED * at_once, max(LEAST_OPEN, 2 * QUEUED * at_once)
        self._start_threads()
        try:
            has_more = True
            while True:
                while has_more and self._num_at_generator < most_queued:
                    if self._num_open >= most_open:
                        break
                    following = next(machines, None)
                    has_more = following is not None
                    if following is not None:
                        self._num_open += 1
                        self._advance(_Open(*following), None, on_outcome)
                if self._num_open == 0 and not has_more:
                    return
                if self._num_open == len(self._failed):
                    self._give_up_failed(on_outcome)
                    continue
                self._take(self._results.get(), on_outcome)
        except Exception:
            self._stop(wait=True)
            raise
        finally:
            self._stop(wait=False)

    def _start_threads(self) -> None:
        works = [self._generate] * self._generator.in_flight
        if self._judge is not None:
            works += [self._judge_one] * self._generator.in_flight
        for work in works:
            # Daemons: Ctrl-C ends the process though requests are out.
            thread = Thread(target=self._work, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _stop(self, *, wait: bool) -> None:
        """Ends the threads, and keeps what they have heard."""
        self._stopped.set()
        for _ in self._threads:
            self._to_generator.put(None)
            self._to_judge.put(None)
        if wait:
            for thread in self._threads:
                thread.join(LAST_REPLIES / len(self._threads))
        while True:
            try:
                result = self._results.get_nowait()
            except Empty:
                return
            if not isinstance(result, BaseException):
                task, heard = result
                if not (isinstance(heard, Reply) and heard.problem):
                    self._journal.add_heard(task.opened.index, task.step, heard)

    def _work(self, work: Callable[[], bool]) -> None:
        try:
            while work():
                pass
        except BaseException as error:
            self._results.put(error)

    def _generate(self) -> bool:
        tasks: list[_Task] = []
        task = self._to_generator.get()
        while task is not None and not self._stopped.is_set():
            tasks.append(task)
            try:
                if len(tasks) == self._generator.batch_size:
                    break
                task = self._to_generator.get_nowait()
            except Empty:
                break
        if self._stopped.is_set() or not tasks:
            return False
        asks = [task.request for task in tasks if isinstance(task.request, Ask)]
        replies = self._generator.replies(asks, self._stopped)
        for task, reply in zip(tasks, replies, strict=True):
            self._results.put((task, reply))
        return True

    def _judge_one(self) -> bool:
        task = self._to_judge.get()
        if task is None or self._stopped.is_set():
            return False
        asked = task.request
        assert self._judge is not None and isinstance(asked, Judgement)
        verdict = self._judge.verdict(asked.requirement, asked.example, asked.response)
        self._results.put((task, verdict))
        return True

    def _take(self, result: _Result, on_outcome: Callable[[Outcome], None]) -> None:
        if isinstance(result, BaseException):
            raise result
        task, heard = result
        if isinstance(task.request, Ask):
            self._num_at_generator -= 1
        if isinstance(heard, Reply) and heard.problem:
            self._failed.append((task, heard))
            if len(self._failed) >= MOST_FAILURES:
                raise ConnectionError(
                    f"{self._generator.name} has not answered {MOST_FAILURES} requests in a row "
                    f"({heard.problem}); what is finished is kept: give the same command again"
                )
            return
        self._hear(task, heard, on_outcome)
        if isinstance(heard, Reply):
            self._give_up_failed(on_outcome)

    def _give_up_failed(self, on_outcome: Callable[[Outcome], None]) -> None:
        """Ends examples without a reply, once it is known that the generator answers others."""
        failed, self._failed = self._failed, []
        usage = self._journal.usage
        if failed and usage.replies == usage.lost:
            raise ConnectionError(
                f"{self._generator.name} has answered none of {len(failed)} requests "
                f"({failed[-1][1].problem}); check the model and its endpoint, then give the same "
                "command again"
            )
        for task, heard in failed:
            self._hear(task, heard, on_outcome)

    def _hear(self, task: _Task, heard: Heard, on_outcome: Callable[[Outcome], None]) -> None:
        self._journal.add_heard(task.opened.index, task.step, heard)
        self._advance(task.opened, heard, on_outcome)

    def _advance(
        self, opened: _Open, heard: Heard | None, on_outcome: Callable[[Outcome], None]
    ) -> None:
        """Runs a machine to its next request that the journal has no answer to."""
        known = self._journal.heard(opened.index)
        for number in count(opened.num_heard):
            try:
                # Only None may be sent to a machine that has just been made.
                request = next(opened.machine) if heard is None else opened.machine.send(heard)
            except StopIteration as stopped:
                outcome: Outcome = stopped.value
                self._num_open -= 1
                self._journal.add_outcome(outcome)
                on_outcome(outcome)
                return
            task = _Task(opened, request)
            opened.num_heard = number + 1
            if number >= len(known):
                self._send(task)
                return
            step, heard = known[number]
            if step != task.step:
                raise ValueError(
                    f"the journal has a reply to {step} where example {opened.index} asks for "
                    f"{task.step}: it is of another version; name another folder"
                )

    def _send(self, task: _Task) -> None:
        if isinstance(task.request, Ask):
            self._num_at_generator += 1
            self._to_generator.put(task)
        else:
            self._to_judge.put(task)
