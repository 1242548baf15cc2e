import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_page_holds_a_placeholder():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 10
    assert [page.name for page in pages if re.search(r"@[A-Z]+@", page.read_text())] == []
