"""The token-shift report as people use it: clicks, keys, filters, light and dark, hostile text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from shift_tables import write_small

Open = Callable[..., Page]
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(open_page: Open, report: Path) -> Page:
    return open_page(report)


def token(page: Page, position: int) -> str:
    return f"#tokens .token[data-position='{position}']"


def classes(page: Page) -> list[str]:
    """Of each token: its class's number, d where the models would choose differently, - if dim."""
    return page.locator("#tokens .token").evaluate_all(
        "nodes => nodes.map(n => /class(\\d)/.exec(n.className)[1]"
        " + (n.classList.contains('differs') ? 'd' : '')"
        " + (n.classList.contains('miss') ? '-' : ''))"
    )


def prompts(page: Page) -> list[str]:
    return page.locator(".prompt-row .number").all_inner_texts()


def facts(page: Page) -> dict[str, list[str]]:
    """The numbers of the open token, by name: aligned, base."""
    page.wait_for_selector("#details:not([hidden])")
    rows = page.locator("#details .facts tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def title(page: Page) -> str:
    page.wait_for_selector("#details:not([hidden])")
    return page.locator("#details-title").inner_text()


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.textContent")


def test_it_says_what_is_compared(page: Page) -> None:
    assert page.title() == "Small <report>"
    assert page.locator("h1").inner_text() == "Small <report>"
    assert page.locator("#subtitle").inner_text().startswith("Llama chat")
    assert "3 responses, 11 tokens" in page.locator("#subtitle").inner_text()
    assert classes(page) == ["0", "1d", "2d", "0", "1d"]
    assert page.locator("#tokens").inner_text() == "The fair July⏎\n</s>"
    shares = page.locator("#shares tbody tr").all_inner_texts()
    first, without_eos, *_, published = (row.replace("\n", " ").split("\t") for row in shares)
    assert (first[0], without_eos[0]) == ("Llama base", "Llama base, without EOS")
    assert [cell.split()[0] for cell in first[-3:]] == ["45.5", "18.2", "36.4"]
    assert published[0] == "Mistral-7B to its instruct model (published)"
    assert published[-3:] == ["82.2", "12.5", "5.2"]
    assert page.locator("#charts svg").count() >= 4
    label = page.locator("figure[data-curve=base_rank] svg").get_attribute("aria-label")
    assert label == "base rank by position, Llama base: 1 at token 1, 2.67 at token 2, 3 at token 5"


def test_a_click_shows_both_sides_of_a_token(page: Page) -> None:
    page.click(token(page, 2))
    assert title(page) == "·July shifted"
    assert page.locator("#details .note").first.inner_text() == "Token 3 of 5, position 2, id 900"
    assert facts(page) == {
        "rank": ["1", "12"],
        "ties": ["0", "7"],
        "probability": ["62.5 %", "0.100 %"],
        "log-probability": [f"{MINUS}0.470", f"{MINUS}6.908"],
        "entropy": ["1.063", "3.142"],
    }
    assert page.locator("#details dd").all_inner_texts() == ["4.438", "∞", "no"]
    rows = [row.split() for row in page.locator("#details .side0 tbody tr").all_inner_texts()]
    assert rows == [
        ["1", "·July", "62.5", "%"],
        ["2", "·month", "25.0", "%"],
        ["3", "·fair", "6.3", "%"],
    ]
    rows = [row.split() for row in page.locator("#details .side1 tbody tr").all_inner_texts()]
    assert rows == [
        ["1", "·month", "50.0", "%"],
        ["2", "The", "25.0", "%"],
        ["3", "·fair", "3.1", "%"],
        ["12", "·July", "0.100", "%"],
    ]
    assert "2 of the 3 likeliest are the same tokens" in page.locator("#details").inner_text()
    assert page.locator("#details .before").inner_text() == "The fair July"
    assert "exact values are in the Parquet table" in page.locator("#details").inner_text()


def test_ranks_of_any_size_are_exact(page: Page) -> None:
    page.click("#prompt-1")
    page.click(token(page, 3))
    assert facts(page)["rank"] == ["1", "70,000"]
    assert title(page) == "⟨31999⟩ shifted"


def test_keys_move_between_tokens_and_prompts(page: Page) -> None:
    page.keyboard.press("ArrowRight")
    assert focused(page) == "The"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused(page) == " July"
    page.keyboard.press("Enter")
    assert title(page) == "·July shifted"
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#details-title")).to_have_text("·fair marginal")
    assert focused(page) == " fair"
    page.keyboard.press("Escape")
    assert page.locator("#details").is_hidden() and focused(page) == " fair"
    page.keyboard.press("ArrowDown")
    assert page.locator("#response-title").inner_text() == "Prompt 2 of 3"
    assert focused(page) == "<script>alert('July')</script>"
    page.keyboard.press("End")
    assert focused(page) == "⟨31999⟩"
    page.keyboard.press("ArrowUp")
    assert page.locator("#response-title").inner_text() == "Prompt 1 of 3"


def test_keys_for_search_help_and_classes(page: Page) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("elham 1/2 t?")
    assert page.input_value("#search") == "elham 1/2 t?" and prompts(page) == []
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == ""
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()
    page.keyboard.press("1")
    assert classes(page) == ["0-", "1d", "2d", "0-", "1d"]


def test_focus_can_be_seen(page: Page) -> None:
    page.keyboard.press("ArrowRight")
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{style}.outlineStyle") == "solid"
    assert page.evaluate(f"parseFloat({style}.outlineWidth)") >= 2


def test_filters_by_class_and_token(page: Page) -> None:
    page.click("#classes button:nth-of-type(1)")
    page.click("#classes button:nth-of-type(2)")
    assert page.locator("#classes button").first.get_attribute("aria-pressed") == "false"
    assert classes(page) == ["0-", "1d-", "2d", "0-", "1d-"]
    assert page.locator("#found").inner_text() == "3 prompts, 4 hits"
    page.fill("#token-search", "july")
    assert page.locator("#found").inner_text() == "1 prompt, 1 hit"
    page.click("#classes button:nth-of-type(1)")
    assert page.locator("#found").inner_text() == "2 prompts, 2 hits"
    assert prompts(page) == ["1", "2"]
    page.fill("#token-search", '"·July"')
    assert prompts(page) == ["1"]
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert focused(page) == " July"


def test_prompts_are_searched_and_sorted(page: Page) -> None:
    page.fill("#search", "SAY THE")
    assert prompts(page) == ["3"]
    page.fill("#search", "fair july")
    assert prompts(page) == ["1"]
    page.fill("#search", "")
    page.select_option("#sort", "shifted")
    assert prompts(page) == ["2", "3", "1"]
    page.select_option("#sort", "kl")
    expect(page.locator(".prompt-row .number")).to_have_text(["1", "2", "3"])


def test_a_most_shifted_token_leads_to_its_places(page: Page) -> None:
    page.click("#most button:has-text('</s>')")
    assert page.input_value("#token-search") == '"</s>"'
    assert prompts(page) == ["3"]
    assert page.locator("#response-title").inner_text() == "Prompt 3 of 3"
    assert classes(page) == ["0-", "2d"]


def test_the_base_can_be_switched(page: Page) -> None:
    page.select_option("#base", "1")
    expect(page.locator("#tokens .differs")).to_have_count(0)
    assert classes(page) == ["0"] * 5
    assert page.locator("#most").inner_text() == "No token is shifted."
    page.click(token(page, 2))
    assert facts(page)["rank"] == ["1", "1"]


def test_an_address_opens_its_token(open_page: Open, report: Path, page: Page) -> None:
    page.click(token(page, 2))
    facts(page)
    fragment = page.evaluate("location.hash")
    assert fragment == "#base=0&prompt=1&token=3"
    assert title(open_page(report, fragment=fragment)) == "·July shifted"
    far = open_page(report, fragment="#base=9&prompt=77&token=x")
    assert far.locator("#response-title").inner_text() == "Prompt 1 of 3"


def test_markup_is_text(page: Page) -> None:
    page.click("#prompt-1")
    shown = page.locator("#tokens .token").all_inner_texts()
    assert shown == ["<script>alert('July')</script>", "</script>", "<!--", "⟨31999⟩"]
    instruction = page.locator("#instruction").inner_text()
    assert instruction == "Write </script><script>alert('March')</script> & <b>more</b>"
    page.click(token(page, 2))
    assert "<script>alert('July')</script></script><!--" in page.locator(".before").inner_text()
    # The page's own, and the facts; columns are plain text.
    assert page.locator("script:not([type='text/plain'])").count() == 2
    assert page.locator("#tokens *:not(span), #instruction *").count() == 0


def background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark(open_page: Open, report: Path, page: Page) -> None:
    light, dark = "rgb(246, 245, 241)", "rgb(22, 24, 28)"
    assert background(page) == light
    page.click("#theme")
    assert background(page) == dark
    page.keyboard.press("t")
    assert background(page) == light
    assert background(open_page(report, color_scheme="dark")) == dark


CONTRAST = """nodes => nodes.map(node => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const luminance = colour => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  let behind = node;
  while (/, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const both = [getComputedStyle(node).color, getComputedStyle(behind).backgroundColor];
  const [low, high] = both.map(luminance).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_can_be_read(open_page: Open, report: Path, scheme: str) -> None:
    page = open_page(report, color_scheme=scheme)
    page.click(token(page, 2))
    facts(page)
    texts = page.locator(".token, .note, .dim, .interval, td, th, button, h1, caption, #found")
    assert min(texts.evaluate_all(CONTRAST)) >= 4.5  # WCAG 2.2, AA


def test_classes_differ_without_colour(page: Page) -> None:
    """In grey the three backgrounds are told apart, and so is the underline."""
    style = "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).fontWeight,"
    style += " getComputedStyle(node).textDecorationLine]"
    unshifted, marginal, shifted = (
        page.locator(token(page, position)).evaluate(style) for position in (0, 1, 2)
    )
    assert unshifted == ["rgba(0, 0, 0, 0)", "400", "none"]
    assert marginal == ["rgb(255, 226, 163)", "400", "underline"]
    assert shifted == ["rgb(179, 51, 14)", "600", "underline"]


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    page.click(token(page, 2))
    facts(page)
    nameless = page.locator("button, select, input, [role=button], [tabindex='0']").evaluate_all(
        "nodes => nodes.filter(n => !(n.ariaLabel || n.labels?.length || n.textContent.trim()"
        " || n.getAttribute('aria-labelledby'))).map(n => n.outerHTML)"
    )
    assert nameless == []
    label = page.locator(token(page, 2)).get_attribute("aria-label")
    assert label == "·July, shifted, base rank 12, argmax differs"


@pytest.mark.parametrize("width", [360, 820, 1200])
def test_nothing_stands_out_of_a_narrow_screen(open_page: Open, report: Path, width: int) -> None:
    page = open_page(report, viewport={"width": width, "height": 800})
    page.click(token(page, 2))
    assert facts(page)["rank"] == ["1", "12"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(token(page, 2)).bounding_box()
    assert box and 0 <= box["y"] < page.locator("#details").bounding_box()["y"] + 800 * (
        width > 850
    )
