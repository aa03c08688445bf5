"""Cuts: what is kept, counted and said, and that a fraction is computed only where that is exact."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import galaxy_clusters.data.cuts as module
from galaxy_clusters.data.catalogue import read_catalogue
from galaxy_clusters.data.cuts import Cut, apply_cuts, read_cuts
from galaxy_clusters.data.schema import Question, VoteSchema
from shared.data.problems import DataError

PAPER = Path(module.__file__).parents[1] / "configs" / "cuts" / "paper.yaml"
SCHEMA = VoteSchema(
    (
        Question("smooth-or-featured", ("smooth", "featured-or-disk", "artifact")),
        Question("disk-edge-on", ("yes", "no"), ("smooth-or-featured", "featured-or-disk")),
    )
)
SMOOTH, EDGE_ON, ARTIFACT = (
    f"{name}_fraction" for name in ("smooth-or-featured_smooth", "disk-edge-on_yes", "smooth-or-featured_artifact")
)


def frame(**columns: list[float]) -> pd.DataFrame:
    made = pd.DataFrame(columns)
    return made.assign(id=[f"g{row}" for row in range(len(made))])


def test_the_papers_cuts_are_strict_and_keep_galaxies_that_were_not_asked_whether_they_are_edge_on() -> None:
    assert PAPER.read_text().startswith("# ")
    cuts = read_cuts(PAPER)
    assert [str(cut) for cut in cuts] == [f"{SMOOTH} < 0.5", f"{EDGE_ON} < 0.3", f"{ARTIFACT} < 0.3"]
    values = {
        SMOOTH: [0.5, 0.49, 0.1, 0.1, 0.1, np.nan, 0.1],
        EDGE_ON: [0.0, 0.29, 0.3, np.nan, 0.1, 0.1, 0.1],
        ARTIFACT: [0.0, 0.29, 0.0, 0.2, 0.3, 0.0, np.nan],
    }
    left, counts = apply_cuts(frame(**values), cuts, SCHEMA)
    assert left["id"].tolist() == ["g1", "g3"]
    assert left.index.tolist() == [0, 1]
    assert counts.to_numpy().tolist() == [
        [f"{SMOOTH} < 0.5", 7, 5, 1],
        [f"{EDGE_ON} < 0.3", 5, 4, 1],
        [f"{ARTIFACT} < 0.3", 4, 2, 1],
    ]


@pytest.mark.parametrize(
    ("op", "kept"),
    [("<", [0]), ("<=", [0, 1]), (">", [2]), (">=", [1, 2]), ("==", [1]), ("!=", [0, 2])],
)
def test_every_comparison_reads_from_yaml_and_keeps_what_it_says(tmp_path: Path, op: str, kept: list[int]) -> None:
    (tmp_path / "cuts.yaml").write_text(f'- {{column: z, keep: "{op} -1e-1", null: error, missing: skip}}\n')
    (cut,) = read_cuts(tmp_path / "cuts.yaml")
    assert cut == Cut("z", op, -0.1, "error", "skip")
    left, _ = apply_cuts(frame(z=[-0.2, -0.1, 0.3]), [cut], SCHEMA)
    assert left["id"].tolist() == [f"g{row}" for row in kept]


def test_a_fraction_comes_from_counts_and_is_null_without_votes(caplog: pytest.LogCaptureFixture) -> None:
    counts = {
        "smooth-or-featured_smooth": [4.0, 6.0, 0.0, np.nan],
        "smooth-or-featured_featured-or-disk": [5.0, 4.0, 0.0, 5.0],
        "smooth-or-featured_artifact": [1.0, 0.0, 0.0, 5.0],
    }
    cut = Cut(SMOOTH, "<=", 0.4, "drop")
    caplog.set_level(logging.INFO)
    left, table = apply_cuts(frame(**counts), [cut], SCHEMA)
    assert left["id"].tolist() == ["g0"]
    assert table["null"].tolist() == [2]
    assert f"cut {SMOOTH} <= 0.4: 1 of 4 galaxies are left; 2 have no value (drop)" in caplog.messages
    assert apply_cuts(frame(**counts), [replace(cut, null="keep")], SCHEMA)[0]["id"].tolist() == ["g0", "g2", "g3"]
    with pytest.raises(DataError) as told:
        apply_cuts(frame(**counts), [replace(cut, null="error")], SCHEMA)
    assert str(told.value) == (
        f"g2 has no {SMOOTH} (2 of 4 galaxies have none): say `null: keep` or `null: drop` in the cut"
    )


def test_one_minus_the_other_answer_is_exact_for_two_answers_and_not_used_for_three(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = frame(
        **{
            "disk-edge-on_no_fraction": [0.9, 0.5, np.nan],
            "smooth-or-featured_featured-or-disk_fraction": [0.9, 0.5, 0.1],
        }
    )
    edge_on, smooth = Cut(EDGE_ON, "<", 0.3, "keep"), Cut(SMOOTH, "<", 0.5, "drop", "skip")
    left, counts = apply_cuts(table, [smooth, edge_on], SCHEMA)
    assert left["id"].tolist() == ["g0", "g2"]
    assert counts["after"].tolist() == [3, 2]
    assert counts["null"].isna().tolist() == [True, False]
    assert f"cut {SMOOTH} < 0.5: skipped, the catalogue has no such column" in caplog.text
    with pytest.raises(DataError) as told:
        apply_cuts(table, [replace(smooth, missing="error")], SCHEMA)
    assert str(told.value) == (
        f"the cut {SMOOTH} < 0.5 needs a column that is neither in the catalogue nor follows from its columns; did you "
        "mean smooth-or-featured_featured-or-disk_fraction? (`missing: skip` in the cut would leave the cut out)"
    )


def test_text_in_a_column_and_a_cut_that_leaves_nothing_are_errors() -> None:
    with pytest.raises(DataError, match=r"^g1: z is 'x', expected a number$"):
        apply_cuts(frame(z=[0.1, "x"]), [Cut("z", "<", 1, "drop")], SCHEMA)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"^the cut z < -1 leaves none of 2 galaxies$"):
        apply_cuts(frame(z=[0.1, 0.2]), [Cut("z", "<", -1, "keep")], SCHEMA)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("column: z\n", " does not hold a list of cuts"),
        ("- {column: z\n", " is not valid YAML (while parsing a flow mapping)"),
        (
            '- {column: z, keep: "< 1"}\n',
            ": cut 1 is {'column': 'z', 'keep': '< 1'}, expected {column: NAME, keep: \"< NUMBER\", "
            "null: keep|drop|error, missing: error|skip}",
        ),
        (
            '- {column: z, keep: "< 1", null: keep, mising: skip}\n',
            ": cut 1 is {'column': 'z', 'keep': '< 1', 'null': 'keep', 'mising': 'skip'}, expected {column: NAME, "
            'keep: "< NUMBER", null: keep|drop|error, missing: error|skip}',
        ),
        (
            '- {column: z, keep: "~ 1", null: keep}\n',
            ": cut 1: keep is '~ 1', expected one of < <= > >= == != and a number",
        ),
        (
            '- {column: z, keep: "< one", null: keep}\n',
            ": cut 1: keep is '< one', expected one of < <= > >= == != and a number",
        ),
        (
            '- {column: z, keep: "< nan", null: keep}\n',
            ": cut 1: keep is '< nan', expected one of < <= > >= == != and a number",
        ),
        ('- {column: z, keep: "< 1", "null": lose}\n', ": cut 1: null is 'lose', expected keep, drop, error"),
        (
            '- {column: z, keep: "< 1", null: keep, missing: use}\n',
            ": cut 1: missing is 'use', expected error, skip",
        ),
    ],
)
def test_a_wrong_file_of_cuts_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "cuts.yaml").write_text(text)
    with pytest.raises(DataError) as told:
        read_cuts(tmp_path / "cuts.yaml")
    assert str(told.value) == f"{tmp_path / 'cuts.yaml'}{said}"


def test_no_file_of_cuts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no file .*none\.yaml$"):
        read_cuts(tmp_path / "none.yaml")


@pytest.mark.realdata
def test_rings_of_decals_can_be_cut_by_edge_on_alone(real_data: Path) -> None:
    table = read_catalogue(real_data / "galaxies" / "decals_rings" / "catalogue.csv")
    cuts = read_cuts(PAPER)
    with pytest.raises(DataError, match=f"the cut {SMOOTH} < 0.5 needs a column"):
        apply_cuts(table, cuts, SCHEMA)
    skipping = [replace(cut, missing="skip") for cut in cuts]
    _, counts = apply_cuts(table, skipping, SCHEMA)
    assert counts["after"].tolist() == [470, 470, 470]  # the set was chosen so
    assert counts["null"].isna().tolist() == [True, False, True]
    stricter = [replace(cut, value=0.1) for cut in skipping]
    left, _ = apply_cuts(table, stricter, SCHEMA)
    assert 0 < len(left) == (table["disk-edge-on_no_fraction"] > 0.9).sum() < 470
