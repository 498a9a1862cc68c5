"""A table reads well in a shell, and is safe in a notebook."""

from compresslab.measurement.tables import Table


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_end_together():
    table = Table(("model", "MACs"), (("a long name", "1"), ("b", "1,000")), "a note")
    assert str(table).splitlines() == [
        "model         MACs",
        "───────────  ─────",
        "a long name      1",
        "b            1,000",
        "a note",
    ]


def test_html_in_a_cell_stays_text():
    shown = Table(("<b>",), (("<script>",),), "a & b")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "&lt;b&gt;" in shown
    assert "<p>a &amp; b</p>" in shown
