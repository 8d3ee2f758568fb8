"""The page of a search in a real browser, with long names and a gate in the way."""

from browser import needs_browser, views
from made_searches import make_refused

from compressor.search.report import search_html

FAIL = (0xB3, 0x20, 0x2C)
# Matplotlib's marker of what fails a gate, and the exported dense model's.
GREY, BLUE = (0x80, 0x80, 0x80), (0x2F, 0x7F, 0xC1)


@needs_browser
def test_the_page_fits_a_screen_and_a_phone(tmp_path):
    long = "models/" + "a-long-name-" * 12
    record = make_refused(dense={"source": long, "sha256": "ab" * 32}, texts={"test": long})
    for view in views(search_html(record), tmp_path):
        assert view.needed == view.width
        assert view.rows > 2 * len(record.candidates)
        assert (view.pixels == FAIL).all(axis=-1).sum() > 1000
        for colour in (GREY, BLUE):
            assert (view.pixels == colour).all(axis=-1).sum() > 10
