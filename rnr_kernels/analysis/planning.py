"""The plan of a token-shift run: which prompts there are, their tokens, and their batches."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch

from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.inputs import Encoder, ShiftPrompt, Skip, Text, read_texts
from rnr_kernels.analysis.manifest import Manifest, check_same, describe
from rnr_kernels.analysis.settings import ShiftSettings, common_tokenizer, smallest_of
from rnr_kernels.analysis.shards import write_prompts
from rnr_kernels.analysis.store import ShiftStore
from rnr_kernels.durable import TEMPORARY, published
from rnr_kernels.teacher_forcing import length_buckets

SORTED_TOGETHER = 4096
"""Prompts whose lengths are sorted at a time: enough for full batches, and few in memory."""


def begin(settings: ShiftSettings, folder: ShiftFolder) -> ShiftStore:
    """Plans a run, or finds it where it was begun before.

    Everything that can be wrong with the settings is found here, before any model is loaded:
    ValueError for a folder of another run or of other things, for tokenizers that differ, for a
    prompts file that cannot be read or of which every record is left out.
    """
    wanted = describe(settings)
    folder.make()
    with folder.locked("plan", wait=True):
        for leftover in folder.path.glob(f"*{TEMPORARY}"):
            leftover.unlink(missing_ok=True)
        found = Manifest.read(folder.manifest) if folder.manifest.exists() else None
        if found is not None:
            check_same(folder.path, found.settings, wanted)
            if folder.inputs.exists():
                return ShiftStore(folder, found)
        return ShiftStore(folder, _plan(settings, folder, wanted, found))


def _plan(
    settings: ShiftSettings,
    folder: ShiftFolder,
    described: dict[str, object],
    found: Manifest | None,
) -> Manifest:
    tokenizer = common_tokenizer(settings)
    eos = settings.eos_token_ids(tokenizer)
    window, num_tokens = smallest_of(settings)
    template, base_template = settings.templates
    plan = _Plan(
        Encoder(tokenizer, template, base_template, settings.rules, eos, window, num_tokens),
        settings,
    )
    write_prompts(folder.inputs, plan.batches())
    with published(folder.skipped) as temporary:
        lines = (
            {"line": skip.line, "index": skip.index, "reason": skip.reason} for skip in plan.skips
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
    manifest = Manifest(
        described,
        torch.get_num_threads() if found is None else found.threads,
        eos, len(plan.skips), tuple(plan.indices),
    )  # fmt: skip
    manifest.write(folder.manifest)
    return manifest


@dataclass
class _Plan:
    """Grows while the batches are drawn from it."""

    encoder: Encoder
    settings: ShiftSettings
    indices: list[tuple[int, ...]] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    def batches(self) -> Iterator[list[ShiftPrompt]]:
        """Prompts of similar length, by index in each batch.

        ValueError if there are none.
        """
        prompts = self._prompts()
        while chunk := list(islice(prompts, SORTED_TOGETHER)):
            lengths = [self._length(prompt) for prompt in chunk]
            for bucket in length_buckets(lengths, self.settings.batch_tokens):
                batch = [chunk[place] for place in sorted(bucket)]
                self.indices.append(tuple(prompt.index for prompt in batch))
                yield batch
        if not self.indices:
            first = self.skips[0]
            raise ValueError(
                f"every record of {self.settings.prompts} is left out; {first.where}: "
                f"{first.reason}"
            )

    def _prompts(self) -> Iterator[ShiftPrompt]:
        for text in read_texts(self.settings.prompts, self.settings.limit):
            found = self.encoder.encode(text) if isinstance(text, Text) else text
            if isinstance(found, Skip):
                self.skips.append(found)
            else:
                yield found

    def _length(self, prompt: ShiftPrompt) -> int:
        """At most; a response that is decoded may be shorter."""
        longest = max(len(prompt.prompt_token_ids), len(prompt.base_prompt_token_ids))
        if prompt.response_token_ids is not None:
            return longest + len(prompt.response_token_ids)
        whole = longest + self.settings.max_new_tokens
        return whole if self.encoder.window is None else min(whole, self.encoder.window)
