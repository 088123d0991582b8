"""Rule files: rule sets as TOML or JSON data.

    name = "no commas"
    preset = "hewitt2024"                       # optional: rules to add to

    [[rules]]
    kind = "token_bias"
    label = "uniform"                           # optional
    steps = [0, 20]                             # optional; the end may be left out
    weights = { "<" = -4, " I" = -5 }           # a string is what the token prints

    [[rules]]
    kind = "ban_tokens"
    tokens = [",", 529]                         # a number is a token id

Where a bias names ids, `weights` is a list: `[{ token = 529, weight = -4 }]`. A ban is `-inf`, in
JSON the string "-inf". A rule file is data alone: nothing in it is ever executed.
"""

import difflib
import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    Token,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.presets import PRESETS, preset

FileRule: TypeAlias = TokenBias | BanTokens | OnlyTokens | EosRamp | UsedTokenPenalty
FILE_KINDS: dict[str, type[FileRule]] = {
    "token_bias": TokenBias,
    "ban_tokens": BanTokens,
    "only_tokens": OnlyTokens,
    "eos_ramp": EosRamp,
    "used_token_penalty": UsedTokenPenalty,
}
_TOP_LEVEL_KEYS = ("name", "preset", "rules")


def load_rules(path: str | os.PathLike[str]) -> RuleSet:
    """The rule set of a .toml or .json file.

    Raises ValueError that names the file, the rule's number and the key for anything that is not a
    rule file, OSError if the file cannot be read.
    """
    path = Path(path)
    content = _content(path)
    try:
        return parse_rules(_parse(content, path), source=str(path))
    except RecursionError:
        raise ValueError(
            f"{path} is nested too deeply: a rule file is a table with {_listed(_TOP_LEVEL_KEYS)}"
        ) from None


def parse_rules(data: Mapping[str, Any], *, source: str = "rules") -> RuleSet:
    """The rule set of a rule file's content; `source` opens every error message.

    Raises ValueError for an unknown key, kind or preset, for a value that does not fit, or if there
    are neither rules nor a preset.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{source}: expected a table with {_listed(_TOP_LEVEL_KEYS)}")
    _check_keys(data, _TOP_LEVEL_KEYS, source)
    for key in ("name", "preset"):
        if not isinstance(data.get(key, ""), str):
            raise ValueError(f"{source}: {key} must be a string, got {data[key]!r}")
    if "preset" not in data and "rules" not in data:
        raise ValueError(
            f"{source}: expected rules or a preset, got neither; add [[rules]] tables, "
            "or write rules = [] if no rules are meant"
        )
    entries = data.get("rules", [])
    if not isinstance(entries, list):
        raise ValueError(f"{source}: rules must be a list of tables, got {type(entries).__name__}")
    rules = [_rule(entry, f"{source}, rule {n}") for n, entry in enumerate(entries, start=1)]
    try:
        base = preset(data["preset"]) if "preset" in data else RuleSet()
        name = data.get("name", None if rules else base.name)
        return RuleSet((*base.rules, *rules), name=name)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def save_rules(rules: RuleSet, path: str | os.PathLike[str]) -> None:
    """Write a rule set to a .toml or .json file that `load_rules` reads back as an equal one.

    Raises ValueError for a ScoreVector, which no rule file can hold; nothing is written then.
    """
    path = Path(path)
    suffix = rule_file_suffix(path)
    data: dict[str, Any] = {} if rules.name is None else {"name": rules.name}
    data["rules"] = [_entry(rule, number) for number, rule in enumerate(rules, start=1)]
    if suffix == ".toml":
        try:
            import tomli_w
        except ImportError as error:
            raise ImportError(
                "writing TOML needs tomli-w: pip install tomli-w, or write a .json file"
            ) from error
        text = tomli_w.dumps(data)
    else:
        text = json.dumps(_json_value(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_bytes(text.encode("utf-8"))


def rule_file_suffix(path: Path) -> str:
    """`.toml` or `.json`; ValueError for any other name."""
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".json"):
        raise ValueError(f"a rule file's name ends in .toml or .json, got {path}")
    return suffix


def _content(path: Path) -> bytes:
    """The bytes of a rule file; OSError in words."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; pass the .toml or .json rule file in it")
    rule_file_suffix(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the rule file {path} does not exist; check the path and the folder it starts from"
        ) from None
    except OSError as error:
        raise type(error)(f"the rule file {path} cannot be read: {error.strerror}") from None


def _parse(content: bytes, path: Path) -> Any:
    suffix = rule_file_suffix(path)
    try:
        text = content.decode("utf-8")
        return tomllib.loads(text) if suffix == ".toml" else _parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is not a {suffix[1:].upper()} file: {error}") from error


def _parse_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {repeated!r} occurs twice in one table")
        return table

    def refuse(constant: str) -> Any:
        raise ValueError(f'{constant} is not JSON; write the string "-inf" for a ban')

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def _check_keys(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    allowed = tuple(allowed)
    for key in table:
        if key not in allowed:
            hint = _did_you_mean(str(key), allowed)
            raise ValueError(f"{where}: unknown key {key!r}{hint}; keys are {_listed(allowed)}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _rule(entry: Any, where: str) -> LogitRule:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: expected a table with a kind, got {type(entry).__name__}")
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in FILE_KINDS:
        got = "none" if "kind" not in entry else repr(kind)
        hint = _did_you_mean(str(kind), FILE_KINDS)
        raise ValueError(f"{where}: kind must be one of {_listed(FILE_KINDS)}, got {got}{hint}")
    where = f"{where} ({kind})"
    rule_type = FILE_KINDS[kind]
    parameters = fields(rule_type)
    _check_keys(entry, ("kind", *(parameter.name for parameter in parameters)), where)
    for parameter in parameters:
        if parameter.default is MISSING and parameter.name not in entry:
            raise ValueError(f"{where}: the key {parameter.name!r} is missing")
    arguments = {key: value for key, value in entry.items() if key != "kind"}
    try:
        if "weights" in arguments:
            arguments["weights"] = _weights(arguments["weights"])
        steps = arguments.get("steps")
        if isinstance(steps, list) and len(steps) == 1:
            arguments["steps"] = [*steps, None]
        return rule_type(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _weights(value: Any) -> dict[Token, Any]:
    if isinstance(value, Mapping):
        return {token: _number(weight) for token, weight in value.items()}
    if not isinstance(value, list):
        raise TypeError("weights must be a table or a list of { token = ..., weight = ... }")
    weights: dict[Token, Any] = {}
    for number, item in enumerate(value, start=1):
        if not isinstance(item, Mapping) or set(item) != {"token", "weight"}:
            raise ValueError(f"weights, item {number}: expected the keys token and weight")
        token = item["token"]
        if isinstance(token, bool) or not isinstance(token, int | str):
            raise TypeError(f"weights, item {number}: token must be an id or a string")
        if token in weights:
            raise ValueError(f"weights, item {number}: token {token!r} occurs twice")
        weights[token] = _number(item["weight"])
    return weights


def _number(value: Any) -> Any:
    return -math.inf if value == "-inf" else value


def _entry(rule: LogitRule, number: int) -> dict[str, Any]:
    kind = next((kind for kind, known in FILE_KINDS.items() if isinstance(rule, known)), None)
    if kind is None:
        raise ValueError(
            f"rule {number} is a {type(rule).__name__}, which a rule file cannot hold; "
            f"save its tensor with torch.save and add the rule in code"
        )
    entry: dict[str, Any] = {"kind": kind}
    for parameter in sorted(fields(rule), key=lambda parameter: parameter.name != "label"):
        value = getattr(rule, parameter.name)
        # Numbers are written even at their default, so that a file keeps its meaning.
        if value is not None and value is not False and value != (0, None):
            entry[parameter.name] = _plain(value)
    return entry


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if all(isinstance(token, str) for token in value):
            return dict(value)
        return [{"token": token, "weight": weight} for token, weight in value.items()]
    if isinstance(value, tuple):
        return [item for item in value if item is not None]
    return value


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return "-inf" if value == -math.inf else value


def find_rules(name_or_file: str | os.PathLike[str]) -> RuleSet:
    """The rule set of a preset's name, or of a TOML or JSON rule file, which may lend its name."""
    name = os.fspath(name_or_file)
    if name in PRESETS:
        return preset(name)
    if not Path(name).exists() and Path(name).suffix not in (".toml", ".json"):
        raise ValueError(
            f"rules must be a preset ({', '.join(PRESETS)}) or a .toml or .json file, got {name!r}"
        )
    rules = load_rules(name)
    return rules if rules.name is not None else replace(rules, name=Path(name).name)
