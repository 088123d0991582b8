"""The kinds of requirement, by name: IFEval's 25 (Zhou et al. 2023, table 1) and some of ours.

A check takes what IFEval's takes, except where that grades something else than the prompt says:

    any kind                    an unknown one, a relation misspelt or a parameter left out is an
                                error; IFEval draws parameters that are missing, at every check
    response_language           py3langid, nothing drawn; a text that tells no language fails
    english_capital, _lowercase case and script alone; a language guessed from capitals is noise
    letter_frequency            any character; IFEval counts a random letter in place of "#"
    existence, frequency        the keyword as it is written, no regular expression
    frequency                   whole words: "other" has no "the"
    forbidden_words             a word may begin or end with a sign, as in "C++"
    forbidden_words, frequency  in scripts without spaces, such as Han, also within longer words
    nth_paragraph_first_word    n counts paragraphs that are not blank, as their number does
    number_words                a mark, such as a vowel sign of Devanagari, ends no word
    number_sentences            sentencex in place of NLTK's punkt; a list's items are sentences
    capital_word_frequency      words as in number_words, in place of NLTK's tokens
    number_bullet_lists         a blank after the marker: *emphasis*, --- and -5 are no points
    number_highlighted_sections ***text*** counts once; no blank inside next to the asterisks
    number_placeholders         [] and [ ] are none
    title                       every <<title>> is looked at, so << >> and << >> have none
    postscript                  the marker starts its line; blanks in it may be left out
    json_format                 NaN and Infinity are not JSON; no depth or number ends in a crash
    end_checker                 a phrase may end in quotation marks itself; it does not begin
                                within a word, as "no" in "casino"
"""

from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.kinds.characters import NoDigits, NoEmoji, Script
from rnr_kernels.roles.kinds.combination import RepeatPrompt, TwoResponses
from rnr_kernels.roles.kinds.content import NumberPlaceholders, Postscript
from rnr_kernels.roles.kinds.format import (
    ConstrainedResponse,
    JsonFormat,
    MultipleSections,
    NoMarkdown,
    NumberBulletLists,
    NumberHighlightedSections,
    OneOfAnswers,
    SingleParagraph,
    Title,
)
from rnr_kernels.roles.kinds.free_form import Persona, Refusal, Scope, Tone
from rnr_kernels.roles.kinds.keywords import Existence, ForbiddenWords, Frequency, LetterFrequency
from rnr_kernels.roles.kinds.language import ResponseLanguage
from rnr_kernels.roles.kinds.length import (
    NthParagraphFirstWord,
    NumberCharacters,
    NumberParagraphs,
    NumberSentences,
    NumberWords,
)
from rnr_kernels.roles.kinds.letter_case import (
    CapitalWordFrequency,
    EnglishCapital,
    EnglishLowercase,
)
from rnr_kernels.roles.kinds.punctuation import NoComma
from rnr_kernels.roles.kinds.startend import EndChecker, Quotation, StartPhrase

IFEVAL: tuple[type[Kind], ...] = (
    CapitalWordFrequency,
    EnglishCapital,
    EnglishLowercase,
    RepeatPrompt,
    TwoResponses,
    NumberPlaceholders,
    Postscript,
    ConstrainedResponse,
    JsonFormat,
    MultipleSections,
    NumberBulletLists,
    NumberHighlightedSections,
    Title,
    Existence,
    ForbiddenWords,
    Frequency,
    LetterFrequency,
    ResponseLanguage,
    NthParagraphFirstWord,
    NumberParagraphs,
    NumberSentences,
    NumberWords,
    NoComma,
    EndChecker,
    Quotation,
)
OURS: tuple[type[Kind], ...] = (
    NoDigits,
    NoEmoji,
    Script,
    NoMarkdown,
    OneOfAnswers,
    SingleParagraph,
    NumberCharacters,
    StartPhrase,
)
JUDGED: tuple[type[Kind], ...] = (Tone, Persona, Scope, Refusal)

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (*IFEVAL, *OURS, *JUDGED)}

CHECKED: tuple[str, ...] = tuple(kind.name for kind in (*IFEVAL, *OURS))
"""The names of those that a program can check."""

DRAWN: tuple[str, ...] = tuple(name for name in CHECKED if name != RepeatPrompt.name)
"""Of these, the ones drawn where no kinds are named: no drawn prompt is the user's own."""
