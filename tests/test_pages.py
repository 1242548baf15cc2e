import re
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).parents[1]


def test_no_page_holds_a_placeholder():
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(found) > 10
    assert [page.name for page in found if re.search(r"@[A-Z]+@", page.read_text())] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_tables_are_what_was_measured(page):
    text = page.read_text()
    assert pages.PLACE.search(text)
    assert text == pages.rendered(text)


def test_a_figure_that_was_edited_is_noticed():
    text = pages.PAGES[0].read_text()
    places = list(pages.PLACE.finditer(text))
    assert len(places) >= 10
    for place in places:
        at = text.rindex(" |", 0, place.end())  # of the last cell
        assert pages.rendered(text[:at] + "7" + text[at:]) == text


def test_the_benchmarks_page_has_no_other_tables():
    assert "|---" not in pages.PLACE.sub("", pages.PAGES[0].read_text())
