"""What the folder of a token-shift run holds of its plan: batches with responses, and without."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.manifest import Manifest
from rnr_kernels.analysis.shards import PromptFile, check_rows, read_prompts


@dataclass(frozen=True)
class ShiftStore:
    """A run that was begun. Its methods raise ValueError for a file that is broken."""

    folder: ShiftFolder
    manifest: Manifest

    @cached_property
    def _inputs(self) -> PromptFile:
        return PromptFile(self.folder.inputs)

    def planned(self, batch: int) -> list[ShiftPrompt]:
        """A batch's prompts as they were planned."""
        return self._inputs.batch(batch)

    def prompts(self, batch: int) -> list[ShiftPrompt] | None:
        """A batch's prompts with their responses; None if some are yet to be decoded."""
        prompts = self.planned(batch)
        missing = without_response(prompts)
        if not missing:
            return prompts
        path = self.folder.responses(batch)
        if not path.exists():
            return None
        check_rows(path, len(missing))
        decoded = {prompt.index: prompt for prompt in read_prompts(path)}
        return [decoded.get(prompt.index, prompt) for prompt in prompts]

    def missing_bases(self, batch: int) -> list[int]:
        """The bases that a batch is yet to be compared with."""
        prompts = self.prompts(batch)
        missing = []
        for base in range(len(self.manifest.bases)):
            path = self.folder.tokens(base, batch)
            if prompts is None or not path.exists():
                missing.append(base)
            else:
                check_rows(path, num_response_tokens(prompts))
        return missing

    def unfinished(self, batches: Iterable[int] | None = None) -> list[int]:
        """The batches, of some or of all, that are yet to be compared with a base."""
        some = range(len(self.manifest.batches)) if batches is None else batches
        return [batch for batch in some if self.missing_bases(batch)]


def without_response(prompts: Sequence[ShiftPrompt]) -> list[ShiftPrompt]:
    """Those that are yet to be decoded."""
    return [prompt for prompt in prompts if prompt.response_token_ids is None]


def num_response_tokens(prompts: Sequence[ShiftPrompt]) -> int:
    """Over all prompts; rows of the batch's tables."""
    return sum(len(prompt.response_token_ids or ()) for prompt in prompts)
