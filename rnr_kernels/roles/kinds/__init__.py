"""The kinds of requirement, by name."""

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
