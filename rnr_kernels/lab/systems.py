"""The systems that are compared, and their stored responses.

A system is the base, the base times rules, or a tuned twin; a twin has one model for each training
seed, the others have one. Responses are files of `rnr-kernels generate`'s format, so that
`rnr-kernels win-rate` reads them too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rnr_kernels.durable import published
from rnr_kernels.generation import generate
from rnr_kernels.lab.study import TWINS, Study
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.evaluate import (
    BATCH_SIZE,
    Prompt,
    Response,
    load_prompts,
    rules_of,
    verdicts_on,
)
from rnr_kernels.models.instructions import DATA_SEED, write_all
from rnr_kernels.models.judge import Verdict
from rnr_kernels.records import RecordWriter, completion_record, read_records
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.teacher_forcing import Forced
from rnr_kernels.tuning.conversations import Conversation, read_conversations
from rnr_kernels.tuning.train import tune

Report = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """A system's responses to all prompts, from one training seed."""

    texts: Sequence[str]
    forced: Sequence[Forced]
    """Prompts and responses as token ids."""
    verdicts: Sequence[Verdict]
    knows: Sequence[bool]
    """Whether the first sentence gives the right answer, whatever follows."""

    @property
    def successes(self) -> list[bool]:
        """Whether each is a success."""
        return [verdict == "success" for verdict in self.verdicts]


@dataclass(frozen=True)
class Bench:
    """A study in its folder: data, twins and responses, made when asked for, kept when made."""

    study: Study
    folder: Path
    report: Report = field(default=lambda text: None)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The held-out questions that every system answers."""
        return load_prompts()[: self.study.prompts]

    @cached_property
    def data(self) -> dict[str, Path]:
        """The instruction set and the single tasks."""
        return write_all(self.folder / "data", seed=DATA_SEED, limit=self.study.records)

    def conversations(self, name: str) -> list[Conversation]:
        """One of the data sets."""
        return read_conversations(self.data[name])

    def twin(self, name: str, seed: int) -> Path:
        """A tuned twin, trained unless it is there."""
        out = self.folder / "twins" / f"{name}-{seed}"
        if out.is_dir():
            return out
        out.parent.mkdir(parents=True, exist_ok=True)
        mode = TWINS[name]
        data = name if mode == "task" else "instructions"
        self.report(f"tuning {name}, seed {seed}")
        tune(
            EMBEDDED,
            self.conversations(data),
            out,
            mode=mode,
            settings=self.study.settings(name, seed),
            data_name=f"{data}.jsonl",
            device="cpu",
        )
        return out

    def answers(self, system: str, seed: int, rules: RuleSet | None = None) -> Answers:
        """A system's responses, generated unless they are there; `rules` of a system of its own."""
        file = (
            self.folder
            / "outputs"
            / (f"{system}-{seed}.jsonl" if system in TWINS else f"{system}.jsonl")
        )
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            model = str(self.twin(system, seed)) if system in TWINS else EMBEDDED
            self.report(f"asking {file.stem}")
            self._generate(file, model, rules if rules is not None else rules_of(system))
        return self._read(file)

    def every(self, system: str) -> list[Answers]:
        """Its answers from every training seed; those of a system without one stand for all."""
        return [self.answers(system, seed) for seed in self.study.seeds]

    def _generate(self, file: Path, model: str, rules: RuleSet | None) -> None:
        tokenizer = load_tokenizer(model)
        completions = generate(
            load_model(model, device="cpu"),
            tokenizer,
            [prompt.instruction for prompt in self.prompts],
            rules=rules,
            max_new_tokens=self.study.max_new_tokens,
            batch_size=BATCH_SIZE,
        )
        with published(file) as temporary, RecordWriter(temporary) as writer:
            for done in completions:
                record = completion_record(done, generator=file.stem, template="tags", seed=None)
                writer.write(record)

    def _read(self, file: Path) -> Answers:
        records = [record for _, record in read_records(file, "outputs", "what the lab wrote")]
        if [record["instruction"] for record in records] != [p.instruction for p in self.prompts]:
            raise ValueError(f"{file} answers other prompts than this study's: remove it")
        texts = [record["output"] for record in records]
        forced = [
            Forced(tuple(record["prompt_token_ids"]), tuple(record["token_ids"]))
            for record in records
        ]
        responses = [Response(r["output"], r["finish_reason"] == "eos") for r in records]
        known = verdicts_on(self.prompts, responses, probe=True)
        return Answers(
            texts,
            forced,
            verdicts_on(self.prompts, responses),
            [verdict == "success" for verdict in known],
        )
