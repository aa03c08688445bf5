"""Figures: what is drawn is what was given, in order, in percent, labelled, and nothing covers anything else."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from shared.evaluation.figures import draw_results
from tabular_imaging.evaluation.figures import (
    ACCENT,
    INK,
    ORANGE,
    PALETTE,
    draw_grad_cam,
    draw_importance,
    draw_low_data,
    draw_pairs,
)


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text on the page; matplotlib also keeps tick labels that lie beyond an axis or belong to a hidden one."""
    found = [figure._suptitle, *(text for legend in figure.legends for text in legend.findobj(Text))]  # type: ignore[attr-defined]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes._left_title]  # type: ignore[attr-defined]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            found += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
    return [text for text in found if text is not None and text.get_text()]


def assert_readable(figure: Figure) -> None:
    """At 100 dpi it draws, no text leaves the page, and no text overlaps another."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba())[..., :3].std() > 5  # not a blank page
    shown = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    assert len(shown) > 3
    for index, (text, box) in enumerate(shown):
        assert figure.bbox.padded(2).containsx(box.x0), f"{text!r} leaves the page"
        assert figure.bbox.padded(2).containsx(box.x1), f"{text!r} leaves the page"
        assert figure.bbox.padded(2).containsy(box.y0), f"{text!r} leaves the page"
        assert figure.bbox.padded(2).containsy(box.y1), f"{text!r} leaves the page"
        for other, other_box in shown[:index]:
            assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{text!r} on {other!r}"


def test_fields_are_ranked_in_percent_and_morphometric_ones_orange() -> None:
    figure = draw_importance(
        ["colour", "length", "price", "height"], np.array([0.1, 0.5, 0.25, 0.15]), [False, True, False, True], "Cars", 3
    )
    axis = figure.axes[0]
    bars = sorted(axis.patches, key=lambda bar: -bar.get_y())
    assert [bar.get_width() for bar in bars] == pytest.approx([50, 25, 15])
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [ORANGE, ACCENT, ORANGE]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["length", "price", "height"]
    assert axis.get_xlabel() == "importance for the embedding, % (the first 3 of 4 fields)"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["morphometric: 65.0% in all, 2 fields", "other: 35.0% in all, 2 fields"]
    assert_readable(figure)


def test_long_field_names_and_bars_of_one_length_cover_nothing() -> None:
    names = [f"Left ventricular end systolic volume indexed to body surface {index}" for index in range(117)]
    figure = draw_importance(names, np.full(117, 1 / 117), [True] * 117, "A long title of an importance " * 5)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == len(set(labels)) == 20
    assert_readable(figure)


def low_data_rows(over: str, sizes: Sequence[float], methods: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": f"method {m}", over: size, "value": value, "low": value - 0.04, "high": value + 0.02}
            for m in range(methods)
            for size, value in zip(sizes, np.linspace(0.3 + 0.05 * m, 0.8, len(sizes)), strict=True)
        ]
    ).sample(frac=1, random_state=0)


@pytest.mark.parametrize(
    ("over", "sizes", "ticks"),
    [("labels", (99, 198, 693), ["99", "198", "693"]), ("fraction", (0.01, 0.1, 1.0), ["1%", "10%", "100%"])],
)
def test_low_data_lines_rise_over_a_log_axis_with_their_intervals(
    over: str, sizes: tuple[float, ...], ticks: list[str]
) -> None:
    table = low_data_rows(over, sizes)
    figure = draw_low_data(table, "Leaves", "AUROC")
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ticks
    assert axis.get_ylabel() == "AUROC, %"
    order = list(table["method"].unique())  # as in the table
    assert [line.get_label() for line in axis.lines] == order
    for line, band, colour in zip(axis.lines, axis.collections, PALETTE, strict=False):
        rows = table[table["method"] == line.get_label()].sort_values(over)
        np.testing.assert_allclose(line.get_xydata(), np.c_[rows[over], 100 * rows["value"]])
        corners = band.get_paths()[0].vertices
        for size, low, high in rows[[over, "low", "high"]].to_numpy():
            heights = corners[np.isclose(corners[:, 0], size), 1]
            assert (heights.min(), heights.max()) == pytest.approx((100 * low, 100 * high))
        assert to_hex(line.get_color()) == to_hex(band.get_facecolor()) == colour
    assert_readable(figure)


def test_many_methods_are_still_told_apart() -> None:
    figure = draw_low_data(low_data_rows("labels", (10, 20, 30, 40, 50, 60, 70), methods=9))
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == 9
    assert_readable(figure)


def test_results_show_every_method_and_protocol_and_a_dash_where_none_is() -> None:
    rows = pd.DataFrame(
        [
            ("Supervised ResNet50", "trainable", 0.6, 0.55, 0.7),
            ("MMCL", "frozen", 0.8, 0.78, 0.81),
            ("MMCL", "trainable", 0.9, 0.9, 0.9),
            ("SupCon", "frozen", np.nan, np.nan, np.nan),
        ],
        columns=["method", "protocol", "value", "low", "high"],
    )
    figure = draw_results(rows, "Cars")
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["60.0", "90.0", "—", "—", "80.0", "—"]  # by protocol
    names = {round(tick.get_loc()): tick.label1.get_text() for tick in axis.yaxis.get_major_ticks()}
    widths = {(names[round(bar.get_y() + bar.get_height() / 2)], bar.get_width()) for bar in axis.patches}
    assert {("Supervised ResNet50", 60.0), ("MMCL", 80.0), ("MMCL", 90.0)} <= widths
    whiskers = [
        tuple(np.round(line[:, 0], 6)) for lines in axis.collections for line in lines.get_segments() if len(line)
    ]
    assert {(55, 70), (78, 81), (90, 90)} <= set(whiskers)
    assert names[2] == "Supervised ResNet50"  # the first on top
    assert_readable(figure)


def test_an_overlay_lights_up_where_its_map_is_and_stands_beside_its_image() -> None:
    images = np.full((4, 2, 32, 32), 100, np.uint8)
    images[:, 0, :, 16:] = 200
    maps = np.zeros((4, 32, 32))
    maps[0, 4:12, 20:28] = 3e-7  # any scale
    figure = draw_grad_cam(images, maps, ["CAD, true", "CAD", "no CAD", "a class of a very long name " * 3], "Hearts")
    assert len(figure.axes) == 8
    plain, overlay = figure.axes[:2]
    shown = np.asarray(plain.images[0].get_array())
    assert shown.shape == (32, 32, 3)
    assert np.allclose(shown[:, 0], 100 / 255)
    assert np.allclose(shown[:, 31], 150 / 255)  # the mean of both phases
    alpha = np.asarray(overlay.images[1].get_alpha())
    assert (alpha > 0.99).sum() == 64
    assert alpha[4:12, 20:28].min() > 0.99
    assert not np.asarray(figure.axes[3].images[1].get_alpha()).any()  # an empty map leaves its image
    assert plain.get_title(loc="left") == "CAD, true"
    assert_readable(figure)
    with pytest.raises(ValueError, match="zip"):
        draw_grad_cam(images, maps, ["too", "few"])


def test_pairs_show_the_image_its_view_and_the_row() -> None:
    rng = np.random.default_rng(0)
    images, views = rng.integers(0, 256, (3, 3, 40, 40), np.uint8), rng.random((3, 3, 16, 16), np.float32)
    rows = [{"length": f"{4000 + i} mm", "body type": "SUV", "registration year": "2012"} for i in range(3)]
    figure = draw_pairs(images, views, rows, "Cars")
    for i in range(3):
        np.testing.assert_allclose(figure.axes[i].images[0].get_array(), images[i].transpose(1, 2, 0) / 255)
        np.testing.assert_allclose(figure.axes[3 + i].images[0].get_array(), views[i].transpose(1, 2, 0), rtol=1e-6)
        drawn = [text.get_text() for text in figure.axes[6 + i].texts]
        assert drawn == ["length", f"{4000 + i} mm", "body type", "SUV", "regist…on year", "2012"]
    assert_readable(figure)


def test_a_note_leads_every_title() -> None:
    image, results = np.zeros((1, 1, 8, 8)), low_data_rows("labels", (1, 2)).assign(protocol="frozen")
    figures = [
        draw_importance(["a"], np.ones(1), [True], "T", note="SYNTHETIC"),
        draw_low_data(results, "T", note="SYNTHETIC"),
        draw_results(results.drop_duplicates("method"), "T", note="SYNTHETIC"),
        draw_grad_cam(image, image[:, 0], [""], "T", note="SYNTHETIC"),
        draw_pairs(image, image, [{"a": "1"}], "T", note="SYNTHETIC"),
    ]
    for figure in figures:
        assert figure.get_suptitle() == "SYNTHETIC: T"
        assert to_hex(figure._suptitle.get_color()) == INK  # type: ignore[attr-defined]
    assert draw_importance(["a"], np.ones(1), [True], "T").get_suptitle() == "T"
    assert draw_importance(["a"], np.ones(1), [True], note="SYNTHETIC").get_suptitle() == "SYNTHETIC"
