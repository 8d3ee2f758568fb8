"""The page in a real browser, at the width of a screen and of a phone."""

from browser import needs_browser, views
from made_reports import SHAPES, judged, make_report, variant

from compressor.validation.report.render import render_html
from compressor.validation.schema import Appendix, AttackRow, LayerRow, Variants

FAIL = (0xB3, 0x20, 0x2C)


def page():
    """A report in which something of everything is wrong, with long names."""
    dense = variant("models/" + "a-long-name-" * 8, 0.92, examples=500)
    slow = [entry.model_copy(update={"stable": False, "rounds": 100}) for entry in dense.latency]
    artifact = variant("artifact", 0.8, examples=500, dense=dense, latency=slow)
    gates = [
        judged("accuracy_under_attack_drop", "<= 0.01", 0.2, "fail", interval=artifact.accuracy_interval),
        judged("accuracy", ">= 0.8", 0.8, "inconclusive", place="8 x 128", note="the times did not settle"),
    ]
    report = make_report(variants=Variants(dense=dense, pruned=dense, artifact=artifact), gates=gates)
    layers = [LayerRow(f"bert.encoder.layer.{i}.attention.self.query", 0.5, 0.01) for i in range(12)]
    attack = AttackRow("artifact", "fresh", "a fine film " * 20, "a fnie film " * 20, 21)
    return render_html(report, Appendix(layers, [attack], {"Test data": "x" * 200}))


@needs_browser
def test_the_page_fits_a_screen_and_a_phone(tmp_path):
    for view in views(page(), tmp_path):
        assert view.needed == view.width
        assert view.rows > 3 * len(SHAPES)
        # The verdict's bar and the badges.
        assert (view.pixels == FAIL).all(axis=-1).sum() > 1000
