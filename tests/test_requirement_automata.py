"""The languages of requirements against their checks."""

from rnr_kernels.roles.requirement import Requirement


def test_a_word_that_begins_in_capitals_takes_none_of_those_before_it_away() -> None:
    requirement = Requirement(
        "change_case:capital_word_frequency", capital_relation="less than", capital_frequency=2
    )
    language = requirement.language()
    assert language is not None
    assert "X and Cs" in language and "X R Cs" not in language
    assert not requirement.check("X R Cs")
