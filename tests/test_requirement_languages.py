"""The language of a response, told the same way in every process."""

import subprocess
import sys
from pathlib import Path

import pytest

from rnr_kernels.roles.kinds.characters import SCRIPTS
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.spoken_languages import LANGUAGES, language_of
from rnr_kernels.roles.text import foreign_letter

KIND = "language:response_language"
SAMPLES = {
    "ar": "يشرب الأطفال الحليب كل صباح قبل الذهاب إلى المدرسة.",
    "bg": "Децата пият мляко всяка сутрин, преди да отидат на училище.",
    "bn": "শিশুরা প্রতিদিন সকালে স্কুলে যাওয়ার আগে দুধ পান করে।",
    "de": "Die Kinder trinken jeden Morgen Milch, bevor sie in die Schule gehen.",
    "en": "The children drink milk every morning before they go to school.",
    "es": "Los niños beben leche todas las mañanas antes de ir a la escuela.",
    "fa": "کودکان هر روز صبح پیش از رفتن به مدرسه شیر می‌نوشند.",
    "fi": "Lapset juovat maitoa joka aamu ennen kuin he menevät kouluun.",
    "fr": "Les enfants boivent du lait chaque matin avant d'aller à l'école.",
    "he": "הילדים שותים חלב בכל בוקר לפני שהם הולכים לבית הספר.",
    "hi": "बच्चे हर सुबह स्कूल जाने से पहले दूध पीते हैं और नाश्ता करते हैं।",
    "it": "I bambini bevono il latte ogni mattina prima di andare a scuola.",
    "ja": "子どもたちは毎朝、学校へ行く前に牛乳を飲みます。",
    "ko": "아이들은 매일 아침 학교에 가기 전에 우유를 마신다.",
    "nl": "De kinderen drinken elke ochtend melk voordat ze naar school gaan.",
    "pt": "As crianças bebem leite todas as manhãs antes de irem para a escola.",
    "ru": "Дети пьют молоко каждое утро, прежде чем пойти в школу.",
    "sw": "Watoto hunywa maziwa kila asubuhi kabla ya kwenda shuleni.",
    "ta": "குழந்தைகள் தினமும் காலையில் பள்ளிக்குச் செல்வதற்கு முன் பால் குடிக்கிறார்கள்.",
    "th": "เด็กๆ ดื่มนมทุกเช้าก่อนไปโรงเรียน",
    "vi": "Trẻ em uống sữa mỗi buổi sáng trước khi đi học.",
    "zh": "孩子们每天早上上学前都喝牛奶。",
}


@pytest.mark.parametrize("code", SAMPLES)
def test_a_sentence_is_in_its_language_and_script(code: str) -> None:
    assert language_of(SAMPLES[code]) == code
    assert foreign_letter(SAMPLES[code], LANGUAGES[code][1]) is None
    assert LANGUAGES[code][1] in SCRIPTS


def test_capitals_do_not_change_the_language() -> None:
    assert language_of(SAMPLES["en"].upper()) == "en"


@pytest.mark.parametrize("text", ["123 + 4", "?!", "😀", "\ud800", "No.", "\0"])
def test_a_text_that_tells_no_language_does_not_follow(text: str) -> None:
    assert language_of(text) is None
    for code in ("en", "sr", "de"):
        verdict = Requirement(KIND, language=code).check(text)
        assert verdict.reason == f"nothing tells that it is {LANGUAGES[code][0]}"


@pytest.mark.parametrize(
    ("code", "script", "sample"),
    [
        ("sr", "Latin", "Deca piju mleko svakog jutra pre nego što krenu u školu."),
        ("sr", "Cyrillic", "Деца пију млеко сваког јутра пре него што крену за школу."),
        ("uz", "Latin", "Bolalar har kuni ertalab maktabga borishdan oldin sut ichadilar."),
        ("uz", "Cyrillic", "Болалар ҳар куни эрталаб мактабга боришдан олдин сут ичадилар."),
    ],
)
def test_a_language_of_two_scripts_is_told_in_both(code: str, script: str, sample: str) -> None:
    requirement, letters = (
        Requirement(KIND, language=code),
        Requirement("characters:script", script=script),
    )
    assert requirement.check(sample) and letters.check(sample)
    language = requirement.language()
    assert language is not None and sample in language
    assert requirement.conflict(letters) is None and letters.conflict(requirement) is None


def test_the_reason_names_both_languages() -> None:
    verdict = Requirement(KIND, language="de").check(SAMPLES["fr"])
    assert verdict.reason == "French, not German"
    assert Requirement(KIND, language="fr").check(SAMPLES["fr"])


def test_an_unknown_language_is_refused_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"language must be one of 'af', .*, got 'enn'; .* 'en'"):
        Requirement(KIND, language="enn")
    with pytest.raises(ValueError, match="language must be one of"):
        Requirement(KIND, language=None)


def test_every_language_is_one_that_the_library_tells() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    assert LANGUAGES.keys() <= set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)


def test_the_librarys_shared_settings_change_nothing() -> None:
    import py3langid

    py3langid.set_languages(["de", "fr"])
    try:
        assert language_of(SAMPLES["en"]) == "en"
    finally:
        py3langid.set_languages(None)


def test_another_process_gives_the_same_answers() -> None:
    texts = [sample[: 3 * n] for n, sample in enumerate(SAMPLES.values(), start=1)]
    code = (
        "import sys; from rnr_kernels.roles.spoken_languages import language_of; "
        f"print([language_of(text) for text in {texts!a}])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str([language_of(text) for text in texts])
