"""What tests of `rnr-kernels roles evaluate` share: files of examples, and the printed table."""

import json
import re
from pathlib import Path

from role_examples import NO_COMMA, example

from rnr_kernels.roles.example import Example

PLAIN = [
    example("1", NO_COMMA, response="It is aye."),
    example("2", NO_COMMA, response="Well, sure:\nIt is."),
    example("3", NO_COMMA, response="No, no."),
]
"""Without anything for a judge: strictly 1 of 3 is followed, loosely 2."""

JUDGE = ["--judge-model", "j", "--base-url", "http://127.0.0.1:1/v1"]
"""An endpoint that is down."""


def write(path: Path, examples: list[Example]) -> Path:
    path.write_text("\n".join(json.dumps(each.as_record()) for each in examples))
    return path


def write_responses(path: Path, texts: list[str]) -> Path:
    records = [{"id": str(n), "response": text} for n, text in enumerate(texts, start=1)]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def rows(out: str) -> dict[str, list[str]]:
    """The printed lines by their labels: n, and the rates in percent."""
    lines = re.findall(r"^ *(\S.*?) {2,}([\d,]+) (.*\N{EN DASH}.*)$", out, re.MULTILINE)
    return {
        label: [n, *re.findall(r"([\d.]+) +[\d.]+\N{EN DASH}", rates)] for label, n, rates in lines
    }
