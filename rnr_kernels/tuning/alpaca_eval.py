"""AlpacaEval's files: outputs that `alpaca_eval` can judge, and verdicts that it can read."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnr_kernels.records import ModelOutput
from rnr_kernels.tuning.win_rate import Judged, Pair

MODEL_OUTPUTS = "model_outputs.json"
REFERENCE_OUTPUTS = "reference_outputs.json"


def output_records(outputs: Iterable[ModelOutput]) -> list[dict[str, Any]]:
    """Responses as AlpacaEval stores a model's."""
    return [
        {
            "instruction": each.instruction,
            "output": each.output,
            "generator": each.generator,
        }
        for each in outputs
    ]


def annotation_records(judged: Iterable[Judged], annotator: str) -> list[dict[str, Any]]:
    """Verdicts as AlpacaEval stores an annotator's, with the judge's reasons as one more field.

    Output 1 is B, the reference, and output 2 is A. The preference is 1 where B wins, 2 where A
    does, 1.5 for a tie, and null without a verdict; AlpacaEval's win rate leaves that out too.
    """
    return [
        {
            "instruction": each.pair.a.instruction,
            "output_1": each.pair.b.output,
            "generator_1": each.pair.b.generator,
            "output_2": each.pair.a.output,
            "generator_2": each.pair.a.generator,
            "annotator": annotator,
            "preference": None if each.preference.score is None else 1 + each.preference.score,
            "reasons": list(each.preference.reasons),
        }
        for each in judged
    ]


def write_outputs(folder: Path, pairs: Sequence[Pair]) -> str:
    """Writes the responses of A and B, row beside row, and returns the command that judges them."""
    files = {
        "--model_outputs": (folder / MODEL_OUTPUTS, [pair.a for pair in pairs]),
        "--reference_outputs": (folder / REFERENCE_OUTPUTS, [pair.b for pair in pairs]),
    }
    for path, outputs in files.values():
        write_array(path, output_records(outputs))
    return shlex.join(
        ["alpaca_eval", "evaluate"]
        + [word for option, (path, _) in files.items() for word in (option, str(path))]
    )


def write_array(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One JSON array, replacing what is there."""
    path.write_text(json.dumps(records, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
