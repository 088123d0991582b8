"""The lab's page: tables, plots and responses in one file without a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnr_kernels import __version__, durable
from rnr_kernels.analysis.token_shift import PositionCurves
from rnr_kernels.lab import measures, plots
from rnr_kernels.lab.systems import Bench
from rnr_kernels.lab.tables import Table

SHOWN = (measures.OPPONENT, *measures.CHALLENGERS)
SHOWN_PROMPTS = 4
SHOWN_CHARACTERS = 240


def write_page(
    bench: Bench,
    tables: Sequence[Table],
    curves: Mapping[str, Sequence[PositionCurves]],
    path: Path,
) -> None:
    """One HTML file; everything that a model wrote is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    pages = Environment(
        loader=PackageLoader("rnr_kernels.lab", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {
        "win-rates": plots.win_rate_plot(
            measures.win_rates(bench, measures.CHALLENGERS), measures.TITLES
        ),
        "token-shift": plots.shift_plot(curves),
    }
    text = pages.get_template("page.html").render(
        study=bench.study,
        settings=bench.study.settings(measures.OPPONENT, bench.study.seeds[0]),
        version=__version__,
        tables=tables,
        pictures={key: Markup(picture) for key, picture in pictures.items()},
        samples=_samples(bench),
    )
    with durable.published(path) as file:
        file.write_text(text, encoding="utf-8")


def _samples(bench: Bench) -> list[dict[str, Any]]:
    """The first prompts with what each system says to them."""
    seed = bench.study.seeds[0]
    answers = {name: bench.answers(name, seed) for name in SHOWN}
    return [
        {
            "instruction": prompt.instruction,
            "responses": [
                (measures.TITLES[name], _cut(each.texts[i]), each.verdicts[i])
                for name, each in answers.items()
            ],
        }
        for i, prompt in enumerate(bench.prompts[:SHOWN_PROMPTS])
    ]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
