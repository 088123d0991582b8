"""The languages that responses are told apart into, and what tells them apart."""

from functools import cache
from typing import Any

from rnr_kernels.roles.text import library

LANGUAGES = {
    "af": ("Afrikaans", "Latin"), "am": ("Amharic", "Ethiopic"), "ar": ("Arabic", "Arabic"),
    "az": ("Azerbaijani", "Latin"), "be": ("Belarusian", "Cyrillic"),
    "bg": ("Bulgarian", "Cyrillic"), "bn": ("Bengali", "Bengali"), "ca": ("Catalan", "Latin"),
    "cs": ("Czech", "Latin"), "cy": ("Welsh", "Latin"), "da": ("Danish", "Latin"),
    "de": ("German", "Latin"), "el": ("Greek", "Greek"), "en": ("English", "Latin"),
    "es": ("Spanish", "Latin"), "et": ("Estonian", "Latin"), "eu": ("Basque", "Latin"),
    "fa": ("Persian", "Arabic"), "fi": ("Finnish", "Latin"), "fr": ("French", "Latin"),
    "ga": ("Irish", "Latin"), "gl": ("Galician", "Latin"), "gu": ("Gujarati", "Gujarati"),
    "ha": ("Hausa", "Latin"), "he": ("Hebrew", "Hebrew"), "hi": ("Hindi", "Devanagari"),
    "hr": ("Croatian", "Latin"), "hu": ("Hungarian", "Latin"), "hy": ("Armenian", "Armenian"),
    "id": ("Indonesian", "Latin"), "ig": ("Igbo", "Latin"), "is": ("Icelandic", "Latin"),
    "it": ("Italian", "Latin"), "ja": ("Japanese", "Japanese"), "ka": ("Georgian", "Georgian"),
    "kk": ("Kazakh", "Cyrillic"), "km": ("Khmer", "Khmer"), "kn": ("Kannada", "Kannada"),
    "ko": ("Korean", "Hangul"), "ky": ("Kyrgyz", "Cyrillic"), "lo": ("Lao", "Lao"),
    "lt": ("Lithuanian", "Latin"), "lv": ("Latvian", "Latin"), "mk": ("Macedonian", "Cyrillic"),
    "ml": ("Malayalam", "Malayalam"), "mn": ("Mongolian", "Cyrillic"),
    "mr": ("Marathi", "Devanagari"), "ms": ("Malay", "Latin"), "mt": ("Maltese", "Latin"),
    "my": ("Burmese", "Myanmar"), "ne": ("Nepali", "Devanagari"), "nl": ("Dutch", "Latin"),
    "no": ("Norwegian", "Latin"), "or": ("Odia", "Oriya"), "pa": ("Punjabi", "Gurmukhi"),
    "pl": ("Polish", "Latin"), "ps": ("Pashto", "Arabic"), "pt": ("Portuguese", "Latin"),
    "ro": ("Romanian", "Latin"), "ru": ("Russian", "Cyrillic"), "si": ("Sinhala", "Sinhala"),
    "sk": ("Slovak", "Latin"), "sl": ("Slovenian", "Latin"), "so": ("Somali", "Latin"),
    "sq": ("Albanian", "Latin"), "sr": ("Serbian", "Cyrillic"), "sv": ("Swedish", "Latin"),
    "sw": ("Swahili", "Latin"), "ta": ("Tamil", "Tamil"), "te": ("Telugu", "Telugu"),
    "tg": ("Tajik", "Cyrillic"), "th": ("Thai", "Thai"), "tl": ("Tagalog", "Latin"),
    "tr": ("Turkish", "Latin"), "uk": ("Ukrainian", "Cyrillic"), "ur": ("Urdu", "Arabic"),
    "uz": ("Uzbek", "Latin"), "vi": ("Vietnamese", "Latin"), "xh": ("Xhosa", "Latin"),
    "yo": ("Yoruba", "Latin"), "zh": ("Chinese", "Han"), "zu": ("Zulu", "Latin"),
}  # fmt: skip
"""English name and script by ISO 639-1 code.

All are labels of py3langid. It has more, rare or close to one of these; among fewer languages a
short English answer is less often taken for one of them.
"""

ALSO_WRITTEN_IN = {"sr": "Latin", "uz": "Cyrillic"}
"""A second script of languages that py3langid tells in both."""

LEAST_PROBABILITY = 0.04
"""Where the model has no evidence, each language is as likely as the next, at most 2 in 84."""


def scripts_of(code: str) -> tuple[str, ...]:
    """The scripts that a language is written in, the first of them more often."""
    first = LANGUAGES[code][1]
    return (first, ALSO_WRITTEN_IN[code]) if code in ALSO_WRITTEN_IN else (first,)


def language_of(text: str) -> str | None:
    """The code of the language a text is most likely in; None where nothing tells.

    Deterministic: py3langid's naive Bayes model with equal weights, nothing drawn. Short texts are
    guesses, as in every identification.
    """
    if not any(map(str.isalpha, text)):
        return None
    code, probability = _identifier().classify(text)
    return str(code) if probability > LEAST_PROBABILITY else None


@cache
def _identifier() -> Any:
    langid = library("py3langid").langid
    # One of our own: the library's is shared by a whole process, and so are its settings.
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
