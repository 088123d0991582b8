"""The tuned twins of the embedded model: their size, how they were trained, what they do."""

import json

import pytest

from rnr_kernels.generation import generate
from rnr_kernels.lab.study import FULL
from rnr_kernels.loading import (
    EMBEDDED,
    display_name,
    embedded_model_path,
    load_model,
    load_tokenizer,
)
from rnr_kernels.models.evaluate import Response, load_prompts, verdicts_on
from rnr_kernels.tuning.train import LOG

TWINS = ("instruction", "response")


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_answers_questions_that_it_was_not_tuned_on(twin: str) -> None:
    name = f"{EMBEDDED}:{twin}"
    prompts = load_prompts()[:28]
    done = generate(
        load_model(name, device="cpu"),
        load_tokenizer(name),
        [prompt.instruction for prompt in prompts],
        max_new_tokens=60,
        batch_size=28,
    )
    responses = [Response(each.text, each.finish_reason == "eos") for each in done]
    assert verdicts_on(prompts, responses).count("success") >= 24


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_is_the_labs_of_the_first_seed(twin: str) -> None:
    log = json.loads((embedded_model_path(twin) / LOG).read_text(encoding="utf-8"))
    assert log["settings"] == FULL.settings(twin, FULL.seeds[0]).as_dict()
    assert (log["mode"], log["base"], log["num_examples"]) == (twin, "rnr-base", 1030)
    assert log["steps"][-1]["step"] == len(log["steps"]) == 85


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_keeps_its_size_limit_and_its_bases_tokenizer(twin: str) -> None:
    folder = embedded_model_path(twin)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6_000_000
    of_base = json.loads((embedded_model_path() / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) == of_base


def test_embedded_models_go_by_name() -> None:
    assert display_name("embedded:response") == "rnr-response"
    with pytest.raises(ValueError, match="are base, instruction, response, got 'r'"):
        load_tokenizer("embedded:r")
