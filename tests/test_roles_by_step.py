"""Two generators as one: who is asked what, and how often at once."""

from collections import Counter
from threading import Barrier, Event, Lock, Thread
from time import sleep

from rnr_kernels.roles.example import Example
from rnr_kernels.roles.pipeline.asks import Ask, Reply
from rnr_kernels.roles.pipeline.by_step import ByStep
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator

EXAMPLE = Example("1", None, (), ({"role": "user", "content": "Why?"},))


class Told(TemplateGenerator):
    """Replies with its own name, and knows how many asked it at once."""

    def __init__(self, name: str, in_flight: int) -> None:
        super().__init__()
        self.name, self.in_flight = name, in_flight
        self.most = self._now = 0
        self._lock = Lock()

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        sleep(0.01)
        with self._lock:
            self._now -= 1
        return [Reply(f"{self.name} {ask.step} {ask.seed}") for ask in asks]


def asks(*steps: str) -> list[Ask]:
    return [Ask(step, EXAMPLE.messages, seed, EXAMPLE) for seed, step in enumerate(steps)]


def test_each_step_is_asked_of_its_generator_in_order() -> None:
    both = ByStep(Told("a", 32), Told("b", 1))
    steps = ("role", "response", "judge", "repair", "conflict")
    found = [reply.text for reply in both.replies(asks(*steps), Event())]
    assert found == ["b role 0", "a response 1", "b judge 2", "a repair 3", "b conflict 4"]


def test_responses_are_asked_for_as_often_at_once_as_their_generator_takes() -> None:
    responses, others = Told("a", 8), Told("b", 1)
    both = ByStep(responses, others)
    assert both.in_flight == 8
    start, heard = Barrier(8), Counter[str]()

    def ask() -> None:
        start.wait()
        heard.update(reply.text[0] for reply in both.replies(asks("role", "response"), Event()))

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": 8, "b": 8}
    assert others.most == 1
