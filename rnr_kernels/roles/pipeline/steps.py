"""What happens to one instruction until it is an example: a machine that asks and is answered.

Its random choices follow from the build's seed and its own index, and so do those of its requests:
in which order examples are finished does not matter.
"""

import random
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from rnr_kernels.roles.conflicts import conflicts, draw_requirements
from rnr_kernels.roles.example import Example, StatedRequirement, hanging, numbered
from rnr_kernels.roles.judge import filled_prompt, short_reason
from rnr_kernels.roles.pipeline.asks import Ask, Reply
from rnr_kernels.roles.pipeline.outcome import Attempt, Dropped, Outcome
from rnr_kernels.roles.pipeline.prompt_texts import Prompts
from rnr_kernels.roles.pipeline.readings import (
    CONFLICTS,
    FOLLOWED,
    ROLE,
    Schema,
    conflicts_of,
    read_object,
    requirements_of,
    requirements_schema,
    role_of,
)
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.sources import Source
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.verdict import Verdict, failed
from rnr_kernels.templates import check_text

T = TypeVar("T")

REPEAT_PROMPT = "combination:repeat_prompt"
DECLINES = StatedRequirement(
    Requirement(
        "free_form:refusal",
        text="Do not answer the last question; decline it, and say what you can help with instead.",
    ),
    "The response does not answer the user's last question; it declines, and says what the "
    "assistant can help with instead.",
)
"""How to tell that a role declines what it does not answer."""
CUT = "the response stops at the limit of tokens"


@dataclass(frozen=True)
class Judgement:
    """One request to a judge."""

    requirement: str
    example: Example
    response: str


Machine: TypeAlias = Generator[Ask | Judgement, Reply | Verdict, Outcome]
Asking: TypeAlias = Generator[Ask | Judgement, Reply | Verdict, T]


class _RejectedError(Exception):
    """The example ends here."""

    def __init__(self, step: str, reason: str, *, is_unheard: bool = False) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason
        self.is_unheard = is_unheard


def seed_of(*parts: object) -> int:
    """A seed of 31 bits, as endpoints take them, that follows from `parts`."""
    return random.Random("/".join(map(str, parts))).getrandbits(31)


class ExampleSteps:
    """The machine of one source: `run` yields requests and returns the outcome.

    With `has_judge`, judged requirements are judgements; else the generator judges them itself.
    """

    def __init__(
        self, source: Source, settings: BuildSettings, prompts: Prompts, *, has_judge: bool = False
    ) -> None:
        self._source = source
        self._settings = settings
        self._prompts = prompts
        self._has_judge = has_judge
        self._rng = random.Random(f"{settings.seed}/{source.index}")
        self._num_asked = 0
        self._example = Example(f"{source.index:06d}", None, (), source.messages)
        self._attempts: list[Attempt] = []
        self._dropped: list[Dropped] = []
        self._unreadable: Counter[str] = Counter()

    def run(self) -> Machine:
        """All steps. What happens is the same for the same replies."""
        # Drawn whether it is used or not: what follows is to be the same.
        is_plain = self._rng.random() < self._settings.plain_share
        is_out_of_scope = self._rng.random() < self._settings.out_of_scope_share
        if is_plain and self._source.response:
            example = self._example.answered(self._source.response)
            return Outcome(self._source.index, example, is_plain=True)
        if is_out_of_scope:
            self._example = replace(self._example, in_scope=False, role_checks=(DECLINES,))
        try:
            yield from self._role()
            yield from self._requirements()
            yield from self._conflicts()
            response = yield from self._response()
        except _RejectedError as rejected:
            return self._outcome(rejected.step, rejected.reason, is_unheard=rejected.is_unheard)
        self._example = self._example.answered(response)
        return self._outcome()

    def _outcome(self, step: str = "", reason: str = "", *, is_unheard: bool = False) -> Outcome:
        return Outcome(
            self._source.index,
            self._example,
            step,
            reason,
            False,
            tuple(self._attempts),
            tuple(self._dropped),
            dict(self._unreadable),
            is_unheard,
        )

    def _role(self) -> Asking[None]:
        prompt = self._prompts.filled(
            "role" if self._example.in_scope else "role_elsewhere",
            conversation=self._example.conversation_text(),
        )
        role = yield from self._read("role", prompt, ROLE, role_of)
        self._example = replace(self._example, role=role)

    def _requirements(self) -> Asking[None]:
        count = self._rng.randint(*self._settings.num_requirements)
        num_written = sum(self._rng.random() < self._settings.written_share for _ in range(count))
        self._state(self._drawn(count - num_written))
        if num_written:
            prompt = self._prompts.filled(
                "requirements",
                role=self._example.role_text(),
                requirements=numbered(self._wordings()) or "(none)",
                conversation=self._example.conversation_text(),
                count=str(num_written),
            )
            written = yield from self._read(
                "requirements",
                prompt,
                requirements_schema(num_written),
                requirements_of,
                num_wanted=num_written,
            )
            self._state(written)
        mixed = list(self._example.requirements)
        self._rng.shuffle(mixed)
        self._example = replace(self._example, requirements=tuple(mixed))

    def _drawn(self, count: int) -> list[Requirement]:
        """So many, or as many as there are kinds that do not conflict."""
        kinds = self._settings.drawn_kinds()
        for number in range(min(count, len(kinds)), 0, -1):
            try:
                drawn = draw_requirements(self._rng, number, kinds)
            except ValueError:
                continue
            return [each for each in map(self._about_instruction, drawn) if each is not None]
        return []

    def _about_instruction(self, drawn: Requirement) -> Requirement | None:
        """A request to repeat the prompt, with the one that there is; None if it is too long."""
        if drawn.kind != REPEAT_PROMPT:
            return drawn
        try:
            return Requirement(REPEAT_PROMPT, prompt_to_repeat=self._source.instruction)
        except ValueError:
            return None

    def _state(self, requirements: Sequence[Requirement]) -> None:
        """Adds requirements in words."""
        stated = [StatedRequirement(q, q.wording(self._rng.getrandbits(31))) for q in requirements]
        every = (*self._example.requirements, *stated)
        self._example = replace(self._example, requirements=every)

    def _wordings(self) -> list[str]:
        return [each.wording for each in self._example.requirements]

    def _conflicts(self) -> Asking[None]:
        stated = self._example.requirements
        found: dict[int, str] = {}
        for one, other, reason in conflicts([each.requirement for each in stated]):
            if one not in found:
                found.setdefault(other, f"conflicts with requirement {one + 1}: {reason}")
        self._drop(found)
        self._check_any_left()
        prompt = self._prompts.filled(
            "conflict",
            role=self._example.role_text(),
            requirements=numbered(self._wordings()),
            conversation=self._example.conversation_text(),
        )
        count = len(self._example.requirements)
        said = yield from self._read(
            "conflict", prompt, CONFLICTS, lambda record: conflicts_of(record, count)
        )
        self._drop({place: f"the model finds a conflict: {why}" for place, why in said.items()})
        self._check_any_left()

    def _check_any_left(self) -> None:
        if not self._example.requirements:
            raise _RejectedError("conflict", "no requirement is left")

    def _drop(self, reasons: Mapping[int, str]) -> None:
        kept = []
        for place, each in enumerate(self._example.requirements):
            if place not in reasons:
                kept.append(each)
                continue
            record = each.requirement.as_record()
            self._dropped.append(Dropped(each.wording, **record, reason=reasons[place]))
        self._example = replace(self._example, requirements=tuple(kept))

    def _response(self) -> Asking[str]:
        system = self._prompts.filled(
            "response" if self._example.in_scope else "decline",
            system=self._example.system_prompt(),
        )
        asked = ({"role": "system", "content": system}, *self._example.messages)
        attempt = yield from self._attempt("response", asked)
        for _ in range(self._settings.repair_rounds):
            if attempt.is_accepted or _is_beyond_repair(attempt):
                break
            mended = (
                *asked,
                {"role": "assistant", "content": attempt.response},
                {"role": "user", "content": self._complaint(attempt)},
            )
            attempt = yield from self._attempt("repair", mended)
        if not attempt.is_accepted:
            raise _RejectedError(
                "verification", self._failures(attempt), is_unheard=self._is_unjudged(attempt)
            )
        return attempt.response

    def _complaint(self, attempt: Attempt) -> str:
        lines = [
            hanging("- ", f"{stated.wording} ({reason})")
            for stated, reason in self._broken(attempt)
        ]
        if attempt.is_cut:
            lines.append("- Come to an end: the response was cut off because it is too long.")
        return self._prompts.filled("repair", failures="\n".join(lines))

    def _failures(self, attempt: Attempt) -> str:
        reasons = [
            f"{stated.requirement.kind}: {reason}" for stated, reason in self._broken(attempt)
        ]
        return "; ".join([CUT] * attempt.is_cut + reasons)

    def _broken(self, attempt: Attempt) -> list[tuple[StatedRequirement, str]]:
        """What a response does not follow, and why."""
        return [
            (stated, verdict.reason or "not followed")
            for stated, verdict in zip(self._example.checks, attempt.verdicts, strict=True)
            if not verdict
        ]

    def _is_unjudged(self, attempt: Attempt) -> bool:
        """All that is wrong is that there are no verdicts, and there is none."""
        judged = [
            verdict
            for stated, verdict in zip(self._example.checks, attempt.verdicts, strict=True)
            if stated.requirement.is_judged
        ]
        return _is_beyond_repair(attempt) and all(verdict.undecided for verdict in judged)

    def _attempt(self, step: str, messages: Sequence[Mapping[str, str]]) -> Asking[Attempt]:
        """A response with its verdicts."""
        example = self._example
        if self._attempts:
            example = example.answered(self._attempts[-1].response)
        reply = yield from self._ask(step, messages, example)
        response = reply.text.strip()
        verdicts = []
        for place, stated in enumerate(example.checks):
            if stated.requirement.is_judged:
                verdict = yield from self._judged(place, response)
            else:
                verdict = stated.requirement.check(response)
            verdicts.append(verdict)
        attempt = Attempt(response, tuple(verdicts), reply.is_cut, reply.note)
        self._attempts.append(attempt)
        return attempt

    def _judged(self, place: int, response: str) -> Asking[Verdict]:
        if not response:
            return failed("the response is empty")
        wording = self._example.checks[place].wording
        if self._has_judge:
            verdict = yield Judgement(wording, self._example, response)
            assert isinstance(verdict, Verdict)
            # A judge of one's own may say anything, and is cut here as when it was just heard.
            return replace(verdict, reason=short_reason(verdict.reason))
        prompt = filled_prompt(self._prompts["judge"], wording, self._example, response)
        try:
            record = yield from self._read(
                "judge",
                prompt,
                FOLLOWED,
                dict,
                example=self._example.answered(response),
                subject=place,
            )
        except _RejectedError as rejected:
            return Verdict(False, f"no verdict: {rejected.reason}", undecided=True)
        return Verdict(record["followed"], short_reason(record["reason"]))

    def _read(
        self,
        step: str,
        prompt: str,
        schema: Schema,
        parse: Callable[[dict[str, Any]], T],
        *,
        example: Example | None = None,
        num_wanted: int = 0,
        subject: int = 0,
    ) -> Asking[T]:
        """What `parse` makes of a JSON reply; ValueErrors of it are told to the model."""
        messages = [{"role": "user", "content": prompt}]
        problem = ""
        for _ in range(self._settings.max_readings):
            reply = yield from self._ask(
                step, messages, example or self._example, schema, num_wanted, subject
            )
            try:
                return parse(read_object(reply.text, schema))
            except ValueError as error:
                problem = str(error)
            self._unreadable[step] += 1
            again = self._prompts.filled("again", problem=problem)
            messages = [
                messages[0],
                {"role": "assistant", "content": reply.text},
                {"role": "user", "content": again},
            ]
        raise _RejectedError(
            step,
            f"{self._settings.max_readings} replies could not be read: {problem}",
            is_unheard=True,
        )

    def _ask(
        self,
        step: str,
        messages: Sequence[Mapping[str, str]],
        example: Example,
        schema: Schema | None = None,
        num_wanted: int = 0,
        subject: int = 0,
    ) -> Asking[Reply]:
        seed = seed_of(self._settings.seed, self._source.index, self._num_asked)
        self._num_asked += 1
        reply = yield Ask(step, tuple(messages), seed, example, schema, num_wanted, subject)
        assert isinstance(reply, Reply)
        if reply.problem:
            raise _RejectedError(step, f"no reply: {reply.problem}", is_unheard=True)
        try:
            check_text(reply.text, "the reply")
        except ValueError as error:
            raise _RejectedError(step, str(error)) from None
        return reply


def _is_beyond_repair(attempt: Attempt) -> bool:
    """All that is wrong is that a judge came to no verdict."""
    failures = [verdict for verdict in attempt.verdicts if not verdict]
    return not attempt.is_cut and all(verdict.undecided for verdict in failures)
