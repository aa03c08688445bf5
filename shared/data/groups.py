"""Groups of samples, such as all of a patient: which column names them, and what leaks from one part to another."""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.problems import DataError
from shared.data.tables import nearest

log = logging.getLogger(__name__)

# What people call the column that says which samples belong together; `_id`, `id`, `_number` and the like may follow.
GROUP_NAMES = ("patient", "subject", "participant", "person", "individual", "animal", "plant", "specimen", "group")
SHOWN = 3  # examples in a message


def is_group(name: object) -> bool:
    """Whether a column is called like one that says which samples belong together: `patient`, `Subject_ID`, ...

    Example:
        >>> [is_group(name) for name in ("patient_id", "PlantID", "group", "subjects", "planting")]
        [True, True, True, False, False]
    """
    usual = rf"({'|'.join(GROUP_NAMES)})[ _-]?(id|no|nr|number|code)?"
    return re.fullmatch(usual, str(name).strip().lower()) is not None


def find_group_column(
    columns: Iterable[str], given: str | None, source: Path, taken: Collection[str | None] = ()
) -> str | None:
    """The column that says which samples belong together, such as the patient; logged if it is inferred.

    Args:
        columns: Columns of the table.
        given: The user's choice; None looks for a usual name. The column of identifiers makes every row its own group.
        source: The table, in messages.
        taken: Columns that are known to be something else.

    Returns:
        Its name; None if there is none.

    Raises:
        DataError: There is no such column, or several have a usual name.
    """
    columns = list(columns)
    if given is not None:
        if given not in columns:
            hint = nearest(given, columns) or f"; it has {', '.join(columns)}"
            raise DataError(f"{source} has no column {given} (group_column){hint}")
        return given
    found = [name for name in columns if is_group(name) and name not in taken]
    if len(found) > 1:
        raise DataError(
            f"{source}: {' and '.join(found)} could each say which rows belong together; say which with "
            "--data.init_args.group_column NAME"
        )
    if not found:
        return None
    log.info(
        "%s: rows with the same %s belong together and stay in one part of the split (--data.init_args.group_column "
        "names another column, or the one of the ids to keep no rows together)",
        source,
        found[0],
    )
    return found[0]


def group_names(groups: "pd.Series[Any]") -> "pd.Series[str]":
    """The names of groups as text, empty where unknown; a whole number has the same name if its column has gaps.

    Example:
        >>> group_names(pd.Series([7.0, None])).tolist(), group_names(pd.Series(["a ", ""])).tolist()
        (['7', ''], ['a', ''])
    """

    def name(value: Any) -> str:
        text = "" if pd.isna(value) else str(value).strip()
        return text.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", text) else text

    return groups.astype(object).map(name).astype(object)


def units(groups: "pd.Series[Any]", ids: "pd.Series[str]") -> list[str]:
    """Names of the groups to split by: a sample whose group is unknown is alone, under a name that no group has.

    Example:
        >>> units(pd.Series(["x ", None]), pd.Series(["1", "x"]))
        ['x', '\\x00x']
    """
    return [group or f"\0{name}" for group, name in zip(group_names(groups), ids, strict=True)]


def group_codes(groups: "pd.Series[Any]") -> NDArray[np.int64]:
    """A number for every group, `(N,)`; a row whose group is unknown (empty) is a group of its own.

    Example:
        >>> group_codes(pd.Series(["b", None, "a", "b", ""])).tolist()
        [0, 3, 1, 0, 6]
    """
    names = group_names(groups)
    codes = pd.factorize(names.where(names != "", None))[0].astype(np.int64)
    return np.where(codes >= 0, codes, codes.max(initial=-1) + 1 + np.arange(len(codes)))


def check_groups(
    split: NDArray[np.object_], groups: "pd.Series[Any]", names: Sequence[str], noun: str, allow: bool = False
) -> None:
    """Check that all samples of a group, such as a patient, are in the same part.

    Args:
        split: `(N,)`, the part of every sample.
        groups: `(N,)`, the group of every sample; see `group_codes`.
        names: `(N,)`, names of the samples in messages.
        noun: What a sample is called.
        allow: Whether to warn only.

    Raises:
        DataError: A group is in several parts, unless that is allowed.
    """
    groups = groups.reset_index(drop=True)
    frame = pd.DataFrame({"code": group_codes(groups), "split": split, "name": names, "group": group_names(groups)})
    parts = frame.groupby("code")["split"].transform("nunique")
    shared = frame[parts > 1]
    if shared.empty:
        return
    examples = "; ".join(
        f"{group['group'].iloc[0]}: "
        + ", ".join(f"{row['name']} in {row['split']}" for _, row in group.drop_duplicates("split").iterrows())
        for _, group in list(shared.groupby("code", sort=False))[:SHOWN]
    )
    count = shared["code"].nunique()
    said = (
        f"{count} {groups.name}{'s' if count > 1 else ''} with {len(shared)} {noun}s are in several parts of the split "
        f"({examples}{'; ...' if count > SHOWN else ''}), so what is tested on was partly trained on"
    )
    if not allow:
        raise DataError(
            f"{said}. Give all {noun}s of a {groups.name} the same part (without a given split, the random one does), "
            "name another group_column, or accept it with --data.init_args.allow_shared_groups true"
        )
    log.warning("%s (allow_shared_groups)", said)


def identical_across_parts(split: NDArray[np.object_], content: NDArray[np.uint64], names: Sequence[str]) -> str:
    """A sentence about samples whose content is identical to one in another part; empty if there is none.

    Args:
        split: `(N,)`, the part of every sample.
        content: `(N,)`, a hash of every sample's content.
        names: `(N,)`, names of the samples.
    """
    frame = pd.DataFrame({"content": content, "split": split, "name": names})
    frame = frame[frame["content"].duplicated(keep=False)]
    frame = frame[frame.groupby("content")["split"].transform("nunique") > 1]
    if frame.empty:
        return ""
    pairs = [group.drop_duplicates("split") for _, group in list(frame.groupby("content", sort=False))[:SHOWN]]
    examples = "; ".join(" = ".join(f"{row['name']} ({row['split']})" for _, row in pair.iterrows()) for pair in pairs)
    more = "; ..." if frame["content"].nunique() > SHOWN else ""
    return f"{len(frame)} have the same content as one in another part of the split: {examples}{more}"
