"""Keeps a generator busy while many examples wait for their steps.

The machines of all examples run in one thread. Requests stand in a queue from which the
generator's own threads take them, and the queue always holds some: a thread that has its reply
finds the next request at once.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event, Thread

from rnr_kernels.roles.example import Example
from rnr_kernels.roles.judge import Judge, name_of
from rnr_kernels.roles.pipeline.asks import Ask, Generator
from rnr_kernels.roles.pipeline.journal import Heard, Journal
from rnr_kernels.roles.pipeline.outcome import Outcome
from rnr_kernels.roles.pipeline.steps import Judgement, Machine
from rnr_kernels.roles.pipeline.unanswered import Unanswered, problem_of
from rnr_kernels.roles.verdict import Verdict

QUEUED = 2
"""Requests that are out or in the queue, times those that a generator takes at once."""
LEAST_OPEN = 64
MOST_UNHEARD = 32
"""Examples in a row for which a model gave nothing of use, until the run ends."""
LAST_REPLIES = 30.0
"""Seconds that a run which ends early waits for replies that are on their way."""

SIMPLE = ({"role": "user", "content": "Say yes."},)
"""What a model is asked to see whether it answers at all."""
SIMPLE_JUDGEMENT = Judgement("Say yes.", Example("", None, (), SIMPLE), "Yes.")
"""The same for a judge."""


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


@dataclass(frozen=True)
class _Result:
    """What came of a task; times are of the monotonic clock, in seconds."""

    task: _Task
    heard: Heard
    sent: float
    came: float


class Scheduler:
    """Runs machines over one generator, one judge and one journal."""

    def __init__(self, generator: Generator, judge: Judge | None, journal: Journal) -> None:
        self._generator = generator
        self._judge = judge
        self._journal = journal
        self._stopped = Event()
        self._results: SimpleQueue[_Result | BaseException] = SimpleQueue()
        self._to_generator: SimpleQueue[_Task | None] = SimpleQueue()
        self._to_judge: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._num_at_generator = 0
        self._num_open = 0
        self._of_generator = Unanswered(generator.name, self._probe_generator)
        self._of_judge = Unanswered(name_of(judge), self._probe_judge)
        self._unheard: list[Outcome] = []
        self._keeps_late = True

    def run(
        self,
        machines: Iterator[tuple[int, Machine]],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Runs all to their ends.

        Raises what the generator or the judge raises; ConnectionError where one of them no longer
        answers, as `Unanswered` finds; and ValueError after `MOST_UNHEARD` examples in a row that
        came to nothing of use. What has been heard by then is in the journal, but nothing of what
        these errors are about: that is asked again.
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
                    self._keep_unheard()
                    return
                if self._num_open == len(self._of_generator) + len(self._of_judge):
                    for failures in (self._of_generator, self._of_judge):
                        self._hear(failures.settle(), on_outcome)
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
                task, heard = result.task, result.heard
                if self._keeps_late and not problem_of(heard):
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
        sent = time.monotonic()
        replies = self._generator.replies(asks, self._stopped)
        came = time.monotonic()
        for task, reply in zip(tasks, replies, strict=True):
            self._results.put(_Result(task, reply, sent, came))
        return True

    def _judge_one(self) -> bool:
        task = self._to_judge.get()
        if task is None or self._stopped.is_set():
            return False
        assert isinstance(task.request, Judgement)
        sent = time.monotonic()
        verdict = self._verdict(task.request)
        self._results.put(_Result(task, verdict, sent, time.monotonic()))
        return True

    def _verdict(self, asked: Judgement) -> Verdict:
        assert self._judge is not None
        return self._judge.verdict(asked.requirement, asked.example, asked.response)

    def _probe_generator(self, failed: _Result) -> str:
        # The step stays, as generators may differ by it.
        assert isinstance(failed.task.request, Ask)
        ask = replace(failed.task.request, messages=SIMPLE, schema=None)
        return problem_of(self._generator.replies([ask], self._stopped)[0])

    def _probe_judge(self, failed: _Result) -> str:
        return problem_of(self._verdict(SIMPLE_JUDGEMENT))

    def _take(self, result: _Result | BaseException, on_outcome: Callable[[Outcome], None]) -> None:
        if isinstance(result, BaseException):
            raise result
        failures = self._of_judge
        if isinstance(result.task.request, Ask):
            self._num_at_generator -= 1
            failures = self._of_generator
        self._hear(failures.take(result), on_outcome)

    def _hear(self, results: list[_Result], on_outcome: Callable[[Outcome], None]) -> None:
        for each in results:
            self._journal.add_heard(each.task.opened.index, each.task.step, each.heard)
            self._advance(each.task.opened, each.heard, on_outcome)

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
                self._end(outcome)
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

    def _end(self, outcome: Outcome) -> None:
        """Keeps an outcome; one for which a model gave nothing of use, once another is better."""
        if not outcome.is_unheard:
            if not outcome.is_plain:  # which no model has had a part in
                self._keep_unheard()
            self._journal.add_outcome(outcome)
            return
        self._unheard.append(outcome)
        if len(self._unheard) == MOST_UNHEARD:
            self._keeps_late = False  # or what is on its way could reject others, unasked
            for each in self._unheard:
                self._journal.forget(each.index)
            raise ValueError(
                f"{self._generator.name} gave nothing of use for {MOST_UNHEARD} examples in a row; "
                f"for the last: {outcome.reason}; check the model and its endpoint: the same "
                "command asks about them again"
            )

    def _keep_unheard(self) -> None:
        for outcome in self._unheard:
            self._journal.add_outcome(outcome)
        self._unheard.clear()

    def _send(self, task: _Task) -> None:
        if isinstance(task.request, Ask):
            self._num_at_generator += 1
            self._to_generator.put(task)
        else:
            self._to_judge.put(task)
