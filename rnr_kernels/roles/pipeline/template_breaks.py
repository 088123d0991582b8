"""Responses that break one requirement on purpose, made of ones that follow it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from rnr_kernels.roles.amounts import AT_LEAST
from rnr_kernels.roles.kinds.format import OPTIONS
from rnr_kernels.roles.pipeline.template_texts import SPOKEN
from rnr_kernels.roles.requirement import Requirement

Parameters = Mapping[str, Any]
Breaker = Callable[[str, Parameters], str]

NEXT_TO_NOTHING = "Zz."
"""One word, one sentence: less than any amount of two or more."""


def broken(response: str, requirement: Requirement) -> str:
    """The response, changed so that it breaks a requirement, and perhaps others too."""
    return BREAKERS[requirement.kind](response, requirement.parameters)


def _without(text: str, part: str) -> str:
    """Leaves no trace of a part, in any case, whatever its removal joins."""
    while part and part.lower() in text.lower():
        text = re.sub(re.escape(part), "", text, flags=re.IGNORECASE)
    return text or NEXT_TO_NOTHING


def _amount(relation: str, limit: str, more: str) -> Breaker:
    """Too little where something is asked for at least; else too much, by many times `more`."""

    def change(text: str, parameters: Parameters) -> str:
        if parameters[relation] == AT_LEAST:
            return NEXT_TO_NOTHING if parameters[limit] > 1 else "!"
        return text + more * int(parameters[limit])

    return change


def _capitals(text: str, parameters: Parameters) -> str:
    if parameters["capital_relation"] == AT_LEAST:
        return text.lower()
    return text + " ZZ" * int(parameters["capital_frequency"])


def _keyword(text: str, parameters: Parameters) -> str:
    if parameters["relation"] == AT_LEAST:
        return _without(text, parameters["keyword"])
    return text + f" {parameters['keyword']}" * int(parameters["frequency"])


def _letter(text: str, parameters: Parameters) -> str:
    if parameters["let_relation"] == AT_LEAST:
        return _without(text, parameters["letter"])
    return text + f" {parameters['letter'] * int(parameters['let_frequency'])}"


def _silent(text: str, parameters: Parameters) -> str:
    for said in SPOKEN.findall(parameters["text"]):
        text = _without(text, said)
    return text


def _without_options(text: str, parameters: Parameters) -> str:
    for option in OPTIONS:
        text = _without(text, option)
    return text


BREAKERS: Mapping[str, Breaker] = {
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda text, _: f"{text} zz",
    "change_case:english_lowercase": lambda text, _: f"{text} ZZ",
    "characters:no_digits": lambda text, _: f"{text} 7",
    "characters:no_emoji": lambda text, _: f"{text} \N{GRINNING FACE}",
    "combination:repeat_prompt": lambda text, _: f"Zz {text}",
    "combination:two_responses": lambda text, _: _without(text, "******"),
    "detectable_content:number_placeholders": lambda text, _: _without(text, "["),
    "detectable_content:postscript": lambda text, each: _without(text, each["postscript_marker"]),
    "detectable_format:constrained_response": _without_options,
    "detectable_format:json_format": lambda text, _: f"{{{text}",
    "detectable_format:multiple_sections": lambda text, each: _without(
        text, each["section_spliter"]
    ),
    "detectable_format:no_markdown": lambda text, _: f"# {text}",
    "detectable_format:number_bullet_lists": lambda text, _: f"{text}\n- Zz.",
    "detectable_format:number_highlighted_sections": lambda text, _: _without(text, "*"),
    "detectable_format:one_of_answers": lambda text, _: f"{text} zz",
    "detectable_format:single_paragraph": lambda text, _: f"{text}\nZz.",
    "detectable_format:title": lambda text, _: _without(text, "<<"),
    "free_form:persona": _silent,
    "free_form:refusal": _silent,
    "free_form:scope": _silent,
    "free_form:tone": _silent,
    "keywords:existence": lambda text, each: _without(text, each["keywords"][0]),
    "keywords:forbidden_words": lambda text, each: f"{text} {each['forbidden_words'][0]}",
    "keywords:frequency": _keyword,
    "keywords:letter_frequency": _letter,
    "length_constraints:nth_paragraph_first_word": lambda text, _: f"{text}\n\nZz.",
    "length_constraints:number_characters": _amount("relation", "num_characters", "z"),
    "length_constraints:number_paragraphs": lambda text, _: f"{text}\n***\nZz.",
    "length_constraints:number_sentences": _amount("relation", "num_sentences", "\n\nZz zz."),
    "length_constraints:number_words": _amount("relation", "num_words", " zz"),
    "punctuation:no_comma": lambda text, _: f"{text} Zz, zz.",
    "startend:end_checker": lambda text, _: f"{text} Zz",
    "startend:quotation": lambda text, _: f"{text} Zz",
    "startend:start_phrase": lambda text, _: f"Zz {text}",
}
"""How the requirements of each kind are broken."""
