"""The other screens, and what holds on every one: no serious accessibility finding in light and dark, nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Shown
from tests.support.synthetic import token_id_of
from tracestore.model import Trace

SCREENS: dict[str, Callable[[Shown], str]] = {
    "traces": lambda shown: shown.url,
    "trace": lambda shown: shown.at("trace", shown.story),
    "mechanism": lambda shown: shown.at("mechanism", shown.story),
    "heads": lambda shown: shown.at("heads", shown.story, layer=1, head=0),
    "selection": lambda shown: f"{shown.url}/#/heads?layer=1&head=0",
    "across": lambda shown: f"{shown.url}/#/across/drivers_across?text=%20John",
    "compare": lambda shown: f"{shown.url}/#/compare?a={shown.story.trace_id}",
    "reasoning": lambda shown: shown.at("reasoning", shown.story),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_screen_has_a_serious_accessibility_finding(browser: Browser, shown: Shown, scheme: str) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light", viewport={"width": 1380, "height": 860})
    page = context.new_page()
    found = []
    for name, address in SCREENS.items():
        page.goto(address(shown))
        page.reload()
        page.locator("main h1").wait_for()
        page.wait_for_load_state("networkidle")
        rules = None if scheme == "light" else {"runOnly": ["color-contrast"]}  # the same elements in other colours
        for violation in Axe().run(page, options=rules).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found += [f"{name}: {violation['id']}: {node['target']} {node['failureSummary']}" for node in violation["nodes"][:3]]
    context.close()
    assert found == []


def test_the_colours_follow_the_system_and_the_switch(browser: Browser, shown: Shown) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(shown.url)
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Dark colours").click()
    expect(root).to_have_attribute("data-theme", "light")
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")
    context.close()


def cells(page: Page) -> dict[tuple[int, int], str]:
    script = "e => e.map(c => [Number(c.dataset.layer), Number(c.dataset.head), c.getAttribute('aria-label')])"
    return {(layer, head): label for layer, head, label in page.locator(".cell").evaluate_all(script)}


def test_the_heat_map_of_a_prediction_holds_every_head(page: Page, shown: Shown) -> None:
    output = shown.story.outputs[-1]
    page.goto(shown.at("heads", shown.story, output=output.output_id))
    page.locator(".cell").first.wait_for()
    found = cells(page)
    heads = shown.story.header["n_heads"]
    assert len(found) == len(output.row["head_vector"])
    for (layer, head), label in found.items():
        value = output.row["head_vector"][layer * heads + head]
        assert f"{'−' if value < 0 else '+'}{abs(value):.3f}" in label  # noqa: RUF001


def test_a_head_leads_to_the_predictions_where_it_matters_most(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}/#/heads")
    page.locator(".cell[data-layer='1'][data-head='0']").click()
    table = page.get_by_label("Predictions of a head")
    expect(table.get_by_role("heading")).to_have_text("Where L1.H0 matters most")
    shares = [float(text.split()[0]) for text in table.locator("td:nth-child(3)").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    table.get_by_role("link").first.click()
    expect(page.locator(".token.target")).to_have_count(1)


def expected_drivers(traces: list[Trace], text: str) -> set[str]:
    outputs = [output for trace in traces for output in trace.outputs if output.row["token_id"] == token_id_of(text)]
    return {row["text"].replace("\n", "↵").strip() for output in outputs for row in output.influences().to_pylist() if not row["sink"]}


def test_a_question_over_all_prompts_is_asked_and_answered(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}/#/across")
    page.get_by_label("text", exact=True).fill(" John")
    page.get_by_role("button", name="Ask").click()
    rows = page.locator("tbody tr")
    rows.first.wait_for()
    names = {text.strip() for text in page.locator("tbody .piece").all_inner_texts()}
    assert names <= expected_drivers([shown.story, shown.long], " John")
    assert "text=+John" in page.url
    page.get_by_role("link", name="look").first.click()
    expect(page.get_by_label("Prediction", exact=True)).to_contain_text("John")


def test_a_wrong_question_says_what_is_missing(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}/#/across/outputs_of_head")
    expect(page.get_by_text("Fill in layer, head")).to_be_visible()


def test_two_traces_stand_side_by_side(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}/#/compare?a={shown.story.trace_id}&b={shown.long.trace_id}")
    left, right = page.get_by_label("Left", exact=True), page.get_by_label("Right", exact=True)
    expect(left.locator(".text .token")).to_have_count(shown.story.header["n_tokens"])
    expect(right.locator(".text .token")).to_have_count(shown.long.header["n_tokens"])
    expect(left.get_by_role("heading", name="Which earlier tokens drove it")).to_be_visible()


def test_steps_stand_beside_the_text_and_a_persons_rationale(page: Page, shown: Shown) -> None:
    page.goto(shown.at("reasoning", shown.story))
    expect(page.get_by_text("John got the book, so the book is his.")).to_be_visible()
    nodes = page.locator(".steps .node")
    expect(nodes).to_have_count(3)
    nodes.last.focus()
    page.keyboard.press("Enter")
    assert page.locator(".text .token.target").count() == 4  # the answer's tokens are marked in the text
    expect(page.locator("#said")).to_have_text(re.compile(r"answer: carried by \d"))
    carriers = page.locator(".list li")
    expect(carriers).to_have_text([re.compile(r"step.*4\.000 \(score \u22121\.000\)"), re.compile(r"step.*3\.000 \(score \+2\.500\)")])
    page.get_by_text("Signed score", exact=True).click()
    expect(page.locator(".lead")).to_contain_text("its width by |score|")
    page.locator(".steps .node").last.press("Enter")
    expect(carriers).to_have_text([re.compile(r"step.*score \+2\.500"), re.compile(r"step.*score \u22121\.000")])
