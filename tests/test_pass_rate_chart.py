"""The figure of pass rates: what it says, in which order, and for whom."""

import re
from pathlib import Path

import pytest
from role_examples import NO_COMMA, THREE, WordJudge, example, says

from rnr_kernels.roles.chart import write_chart
from rnr_kernels.roles.pass_rate import PassRate, pass_rate


def rate() -> PassRate:
    return pass_rate(THREE, judge=WordJudge())


def words(path: Path) -> list[str]:
    """The texts of a figure, in their order."""
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def test_one_system_is_drawn_strict_and_loose_the_best_kind_first(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    write_chart({"mine": rate()}, file)
    found = words(file)
    assert "mine, strict" in found and "loose" in found
    labels = [each for each in found if each in ("all requirements", "tone", "no comma")]
    assert labels == ["all requirements", "tone", "no comma"]
    assert {"3", "5", "n"} <= set(found)
    assert not {"role kept", "out of scope declined"} & set(found)
    again = tmp_path / "again.svg"
    write_chart({"mine": rate()}, again)
    assert again.read_bytes() == file.read_bytes()


def test_two_systems_are_drawn_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    other = pass_rate([example("1", says("x", "free_form:scope"))], ["x"], judge=WordJudge())
    write_chart({"mine": rate(), "other": other}, file)
    found = words(file)
    assert {"mine", "other", "tone", "no comma", "scope"} <= set(found) and "loose" not in found


def test_roles_have_lines_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    checked = example("1", response="Aye.", role_checks=(NO_COMMA,))
    declined = example("2", response="No.", role_checks=(NO_COMMA,), in_scope=False)
    write_chart({"mine": pass_rate([checked, declined])}, file)
    assert {"role kept", "out of scope declined"} <= set(words(file))
    assert "all requirements" not in words(file)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".pdf"])
def test_other_formats(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"chart{ending}"
    write_chart({"mine": rate()}, file, dpi=50)
    assert file.read_bytes()[:4] in (b"\x89PNG", b"%PDF")
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg, \.pdf, got 'chart\.jpg'"):
        write_chart({"mine": rate()}, tmp_path / "chart.jpg")
    for names in ((), ("a", "b", "c")):
        with pytest.raises(ValueError, match=f"1 or 2 systems, got {len(names)}"):
            write_chart(dict.fromkeys(names, rate()), tmp_path / "chart.svg")
    with pytest.raises(ValueError, match="no example has a requirement"):
        write_chart({"mine": pass_rate([example("1", response="x")])}, tmp_path / "chart.svg")
