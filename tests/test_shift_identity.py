"""What tells the models and rules of a run apart."""

import os
import shutil
from pathlib import Path

import pytest
from tiny_llama import save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels import RuleSet, TokenBias, identity
from rnr_kernels.identity import file_digest, model_identity, rules_digest
from rnr_kernels.loading import EMBEDDED


def test_a_copy_is_the_same_model(tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    one = save_llama(tmp_path / "a" / "tiny", tiny_bpe)
    other = tmp_path / "b" / "tiny"
    shutil.copytree(one, other)
    os.utime(other / "config.json", (0, 0))
    (other / "README.md").write_text("no part of the model")
    assert model_identity(str(one)) == model_identity(str(other))
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert model_identity(str(one)) != model_identity(str(other))


def test_an_embedded_model_goes_by_its_files() -> None:
    found = model_identity(EMBEDDED)
    assert found["name"] == "rnr-base"
    assert list(found["files"]) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 1000, 5000, 99_999])
def test_a_large_file_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Blocks of 10 bytes, every 111 bytes: all of the weights are others, or one byte."""
    monkeypatch.setattr(identity, "READ_WHOLE", 10_000)
    monkeypatch.setattr(identity, "SAMPLE", 10)
    monkeypatch.setattr(identity, "NUM_SAMPLES", 901)
    content = bytearray(100_000)
    (tmp_path / "a").write_bytes(content)
    content[place] = 1
    (tmp_path / "b").write_bytes(content)
    (tmp_path / "c").write_bytes(bytes(99_999))
    (tmp_path / "d").write_bytes(b"\1" * 100_000)
    a, b, c, d = (file_digest(tmp_path / name) for name in "abcd")
    assert len({a, c, d}) == 3
    assert (a != b) == (place % 111 < 10)
    assert file_digest(tmp_path / "a", whole=True) != file_digest(tmp_path / "b", whole=True)


def test_rules_go_by_what_they_do() -> None:
    rules = RuleSet([TokenBias({5: 2.0})], name="a")
    assert rules_digest(rules) == rules_digest(RuleSet([TokenBias({5: 2.0})], name="b"))
    assert rules_digest(rules) != rules_digest(RuleSet([TokenBias({5: 2.5})], name="a"))
