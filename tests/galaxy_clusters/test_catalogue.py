"""Catalogues: identifiers digit for digit whatever the format, positions, paths, and what is refused."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from galaxy_clusters.data.catalogue import image_paths, read_catalogue, sdss_fields
from shared.data.problems import DataError

IDS = ["588848901537202306", "8647474690312307154", "1237645879551066262"]


def write_csv(path: Path, name: str = "objid") -> Path:
    path = path / "table.csv"
    path.write_text(f"z,{name}\n" + "".join(f"0.{row},{text}\n" for row, text in enumerate(IDS)))
    return path


def write_gzip(path: Path) -> Path:
    pd.read_csv(write_csv(path), dtype=str).to_csv(path / "table.csv.gz", index=False)
    return path / "table.csv.gz"


def write_parquet(path: Path) -> Path:
    table = pa.table(
        {
            "z": [0.0, 0.1, 0.2],
            "vector": pa.array([[1.0], [2.0], [3.0]]),
            "n": pa.array([2**60 + 1, None, 3]),
            "ObjID": pa.array([int(text) for text in IDS]),
        }
    )
    pq.write_table(table, path / "table.parquet")
    return path / "table.parquet"


def table() -> Table:
    return Table(
        {
            "z": np.array([0.0, 0.1, 0.2], ">f4"),
            "OBJID": np.array([int(text) for text in IDS], ">i8"),
            "name": np.array(["a  ", "b", "c c"], "S6"),
            "n": MaskedColumn(np.array([2**60 + 1, 0, 3]), mask=[False, True, False]),
            "empty": MaskedColumn(np.zeros(3), mask=True),
            "vector": np.zeros((3, 2)),
        }
    )


def write_fits(path: Path) -> Path:
    fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(table())]).writeto(path / "table.fits")
    return path / "table.fits"


def write_votable(path: Path) -> Path:
    table().write(path / "table.vot", format="votable")
    return path / "table.vot"


@pytest.mark.parametrize("write", [write_csv, write_gzip, write_parquet, write_fits, write_votable])
def test_identifiers_of_19_digits_are_exact_in_every_format(
    tmp_path: Path, write: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    frame = read_catalogue(write(tmp_path))
    assert frame["id"].tolist() == IDS
    assert frame["id"].dtype == "str"
    assert np.allclose(frame["z"], [0.0, 0.1, 0.2])
    assert frame["z"].dtype.isnative  # type: ignore[union-attr]
    assert "identifies the rows (--id_column names another)" in caplog.text
    if "n" in frame:
        assert frame["n"].isna().tolist() == [False, True, False]
        assert frame["n"].iloc[0] == 2**60 + 1
        assert "vector" not in frame
        assert "1 columns with several values a row are left out: vector" in caplog.text
    if "name" in frame:
        assert frame["name"].str.rstrip().tolist() == ["a", "b", "c c"]
        assert frame["empty"].isna().all()


def test_columns_of_various_lengths_are_text_or_left_out(tmp_path: Path) -> None:
    arrays = np.empty(2, object)
    arrays[:] = [np.zeros(2), np.zeros(3)]
    Table({"id": np.array(["a", "bbb"], object), "w": arrays}).write(tmp_path / "t.xml", format="votable")
    assert (tmp_path / "t.xml").read_text().count('arraysize="*"') == 2
    assert read_catalogue(tmp_path / "t.xml").to_dict("list") == {"id": ["a", "bbb"]}


def test_the_column_of_identifiers_is_the_first_known_one_or_the_given_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_text("objid,brick,DR8_ID,ID_\n7,1,1_7,x\n7,2,2_7,y\n")
    assert read_catalogue(tmp_path / "a.csv")["id"].tolist() == ["1_7", "2_7"]  # objid is unique in a brick only
    frame = read_catalogue(tmp_path / "a.csv", id_column="ID_")
    assert frame["id"].tolist() == ["x", "y"]
    assert set(frame) == {"objid", "brick", "DR8_ID", "id"}
    (tmp_path / "b.csv").write_text("id,key\n0001,k\n0002,l\n")
    assert read_catalogue(tmp_path / "b.csv")["id"].tolist() == ["0001", "0002"]
    assert read_catalogue(tmp_path / "b.csv", "key")["id"].tolist() == ["k", "l"]
    assert f"{tmp_path / 'b.csv'}: the column id is left out, since key identifies the rows" in caplog.messages


def said(path: Path, **options: str) -> str:
    with pytest.raises(DataError) as told:
        read_catalogue(path, **options)
    return str(told.value).removeprefix(str(path))


def test_rounded_identifiers_are_refused(tmp_path: Path) -> None:
    advice = (
        ", which have lost the last digits: save it again with objid as text or as 64-bit whole numbers (in pandas, "
        "read_csv(..., dtype={'objid': str}) where a cell is empty)"
    )
    frame = pd.DataFrame({"objid": [float(IDS[0]), np.nan]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert said(tmp_path / "a.parquet") == (f" holds objid as floating-point numbers ({float(IDS[0])}){advice}")
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert said(tmp_path / "a.csv").endswith(advice)
    (tmp_path / "b.csv").write_text("objid,z\n5.888489015372023e+17,1\n")
    assert said(tmp_path / "b.csv") == f" holds objid as floating-point numbers (5.888489015372023e+17){advice}"
    (tmp_path / "c.csv").write_text("objid,z\n588848901537202306.0,1\n")
    assert said(tmp_path / "c.csv").startswith(" holds objid as floating-point numbers (588848901537202306.0), which")
    pd.DataFrame({"objid": np.array([2**24], np.float32)}).to_parquet(tmp_path / "d.parquet")
    assert said(tmp_path / "d.parquet").startswith(" holds objid as floating-point numbers (16777216.0), which")


def test_small_whole_numbers_are_exact_as_floats_too(tmp_path: Path) -> None:
    pd.DataFrame({"objid": [3.0, 2.0**53 - 1]}).to_parquet(tmp_path / "a.parquet")
    assert read_catalogue(tmp_path / "a.parquet")["id"].tolist() == ["3", "9007199254740991"]


def test_an_identifier_of_19_digits_beside_an_empty_one(tmp_path: Path) -> None:
    advice = "row 2 of 2 has no objid: fill it or leave the row out"
    (tmp_path / "a.csv").write_text(f"objid,z\n{IDS[1]},1\n,2\n")
    assert said(tmp_path / "a.csv") == f": {advice}"
    pq.write_table(pa.table({"objid": pa.array([int(IDS[1]), None])}), tmp_path / "a.parquet")
    assert said(tmp_path / "a.parquet") == f": {advice}"
    column = MaskedColumn([int(IDS[1]), 0], mask=[False, True])
    Table({"objid": column}).write(tmp_path / "a.fits")
    assert said(tmp_path / "a.fits") == f": {advice}"


def test_an_index_of_pandas_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"id_str": IDS, "z": 1}).set_index("id_str").to_parquet(tmp_path / "a.parquet")
    assert read_catalogue(tmp_path / "a.parquet")["id"].tolist() == IDS
    pd.DataFrame({"id_str": IDS, "z": 1})[::-1].to_parquet(tmp_path / "b.parquet")
    assert list(read_catalogue(tmp_path / "b.parquet")) == ["id", "z"]


def test_other_errors_of_a_table(tmp_path: Path) -> None:
    assert said(tmp_path / "none.csv") == f"no file {tmp_path / 'none.csv'}"
    (tmp_path / "a.xlsx").touch()
    assert said(tmp_path / "a.xlsx") == (
        ": catalogues end with .csv, .csv.gz, .parquet, .pq, .fits, .fit, .fits.gz, .vot, .votable, .xml, .vot.gz; "
        "save it as one of these"
    )
    (tmp_path / "a.csv").write_text("id,z\na,1\nb,1\na,2\na,3\n")
    assert said(tmp_path / "a.csv") == (
        ": rows 1 and 3 have the same id a (2 repeat an earlier one): leave one out, or give another column with "
        "--id_column NAME"
    )
    (tmp_path / "b.csv").write_text("name,z\na,1\n")
    assert said(tmp_path / "b.csv") == (
        " has no column id, id_str, dr8_id, objid, iauname; say which of its columns identifies a row with --id_column "
        "NAME (it has name, z)"
    )
    assert said(tmp_path / "b.csv", id_column="nam") == " lacks the column nam; it has name, z"
    pd.DataFrame({"id": []}).to_parquet(tmp_path / "c.parquet")
    assert said(tmp_path / "c.parquet") == " has no row"
    for name, kind in (("d.parquet", "Parquet"), ("d.fits", "FITS"), ("d.vot", "VOTable")):
        (tmp_path / name).write_text("no table")
        assert said(tmp_path / name).startswith(f" cannot be read as {kind} (")
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    assert said(tmp_path / "image.fits").startswith(" cannot be read as FITS (")


def test_positions_are_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def write(rows: str) -> Path:
        (tmp_path / "a.csv").write_text("id,RA,Dec\n" + rows)
        return tmp_path / "a.csv"

    frame = read_catalogue(write("a,0,-90\nb,359.9,90\nc,,\n"))
    assert frame["ra"].tolist()[:2] == [0.0, 359.9]
    assert frame["dec"].tolist()[:2] == [-90.0, 90.0]
    assert frame[["ra", "dec"]].iloc[2].isna().all()
    assert said(write("a,1,1\nb,360,2\n")) == ": row 2 (b) has ra 360, expected degrees in [0, 360)"
    assert said(write("a,-0.1,1\n")) == ": row 1 (a) has ra -0.1, expected degrees in [0, 360)"
    assert said(write("a,1,90.5\n")) == ": row 1 (a) has dec 90.5, expected degrees in [-90, 90]"
    assert said(write("a,1,1\nb,12:30:00,2\n")) == "b: ra is '12:30:00', expected a number"
    assert not caplog.messages
    read_catalogue(write("a,0.5,-20\nb,23,40\n"))
    assert caplog.messages == [
        f"{tmp_path / 'a.csv'}: no ra is above 24 while dec is spread wide: is ra in hours? Degrees are expected"
    ]


def test_positions_are_read_from_iau_names_as_astropy_reads_them(tmp_path: Path) -> None:
    names = ["J000411.19+020924.0", "SDSS J235959.99-003006.5", "J123000-895959.9"]
    (tmp_path / "a.csv").write_text("iauname,z\n" + "".join(f"{name},1\n" for name in names))
    frame = read_catalogue(tmp_path / "a.csv")
    texts = ["00:04:11.19 +02:09:24.0", "23:59:59.99 -00:30:06.5", "12:30:00 -89:59:59.9"]
    expected = SkyCoord(texts, unit=(units.hourangle, units.deg))
    assert np.allclose(frame["ra"], expected.ra.deg, rtol=0, atol=1e-9)
    assert np.allclose(frame["dec"], expected.dec.deg, rtol=0, atol=1e-9)
    (tmp_path / "b.csv").write_text("iauname,z\nJ000411.19+020924.0,1\nJ250000.0+000000.0,1\n")
    assert "ra" not in read_catalogue(tmp_path / "b.csv")


def test_paths_stay_in_the_root_and_lose_the_folder_of_another_machine(tmp_path: Path) -> None:
    file = tmp_path / "images" / "a.png"
    file.parent.mkdir()
    file.touch()
    frame = pd.DataFrame({"id": ["a", "b"], "file": ["images/a.png", "images/b.png"]})
    assert image_paths(frame, "file", tmp_path) == [file, file.with_name("b.png")]
    other = frame.assign(file=["/theirs/data/images/a.png", "/theirs/data/images/b.png"])
    assert image_paths(other, "file", tmp_path, strip_prefix="/theirs/data") == [file, file.with_name("b.png")]
    assert image_paths(frame.assign(file=str(file)), "file", tmp_path) == [file, file]

    def told(frame: pd.DataFrame, **options: str) -> str:
        with pytest.raises(DataError) as error:
            image_paths(frame, options.pop("column", "file"), tmp_path, **options)
        return str(error.value)

    what = "no image file /theirs/data/images/a.png: is the path of another machine? give --strip_prefix "
    assert told(other) == f"{what}/theirs/data"
    file.rename(tmp_path / "a.png")
    assert told(other) == f"{what}/theirs/data/images"
    (tmp_path / "a.png").unlink()
    assert told(other) == f"{what}with the folder that stands for {tmp_path} there"
    assert told(other, strip_prefix="/their") == (
        "/theirs/data/images/a.png does not start with /their/: give another --strip_prefix"
    )
    assert told(frame.assign(file=["x.png", " "])) == "b has no path in the column file: fill it or leave the row out"
    assert told(frame, column="path") == "the catalogue lacks the column path; it has id, file"
    outer = tmp_path / "root"
    outer.mkdir()
    (tmp_path / "x.png").touch()
    (outer / "link.png").symlink_to(tmp_path / "x.png")
    for outside in ("../x.png", "..", "a/../..", "link.png", str(tmp_path / "x.png")):
        with pytest.raises(DataError, match="leads out of the data's root"):
            image_paths(frame.assign(file=["a.png", outside]), "file", outer)


def test_fields_of_sdss_objids() -> None:
    def packed(sky: int, rerun: int, run: int, camcol: int, field: int, number: int) -> str:
        return str(sky << 59 | rerun << 48 | run << 32 | camcol << 29 | field << 16 | number)

    known = [packed(1, 40, 752, 3, 17, 5), packed(2, 301, 8162, 6, 4095, 65535)]
    found = sdss_fields(known)
    assert found is not None
    assert found.to_numpy().tolist() == [[752, 3, 17], [8162, 6, 4095]]
    for other in ("abc", "123", packed(1, 40, 752, 7, 17, 5), packed(3, 40, 752, 3, 17, 5), "9999999999999999999"):
        assert sdss_fields([*known, other]) is None


@pytest.mark.realdata
def test_real_catalogues(real_data: Path) -> None:
    frame = read_catalogue(real_data / "galaxies" / "gz1" / "catalogue.csv")
    fields = sdss_fields(frame["id"].tolist())
    assert fields is not None
    assert (len(fields), fields["run"].nunique(), fields["camcol"].nunique()) == (6664, 249, 6)
    assert len(fields.drop_duplicates()) == 6549
    assert all(path.is_file() for path in image_paths(frame[:50], "file_loc", real_data / "galaxies" / "gz1"))
    rings = read_catalogue(real_data / "galaxies" / "decals_rings" / "catalogue.csv")
    assert rings[["ra", "dec"]].iloc[0].tolist() == pytest.approx([1.046625, 2.156667], abs=1e-6)
    assert sdss_fields(rings["id"].tolist()) is None
