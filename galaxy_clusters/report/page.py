"""The page to start from: what was done, a table of the clusters, their contact sheets, and links to map and tables."""

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

import pandas as pd

from shared.data.files import whole

_NONE = """<p class="none">No cluster was found: nowhere is this sample denser than around it, at these settings.
A smaller min_samples finds smaller classes, at the price of more that are chance.</p>"""


def write_page(
    path: Path,
    title: str,
    clusters: pd.DataFrame,
    shown: Mapping[str, Path | Mapping[str, Sequence[str]]],
    evidence: Mapping[str, Mapping[str, str]],
    settings: Mapping[str, object],
    links: Mapping[str, Path],
    note: str = "",
    remarks: Sequence[str] = (),
) -> None:
    """Write one HTML page, which needs no network; text of the catalogue is text on it, never markup.

    Args:
        path: The page. What it links to is at or below its folder, so that the folder can be sent on.
        title: Heading.
        clusters: A row a cluster: `cluster` (its name), `group` where clusters are grouped by hand, then what is known
            of it; numbers are sorted as numbers.
        shown: By cluster or group, its contact sheet, or lists of identifiers by heading; of `write_gallery`.
        evidence: Likewise, what is known of it: beside lists of identifiers, and for who cannot see its sheet.
        settings: What was done, by name.
        links: Files to link to, by what they are.
        note: Said in big at the top, "SYNTHETIC" for synthetic data.
        remarks: Sentences on the whole, such as why no p is given.

    Raises:
        ValueError: Something that is linked to is not below the page's folder.
    """
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    listed = (f'<li><a href="{escape(_link(path, file))}">{escape(what)}</a></li>' for what, file in links.items())
    text = template.substitute(
        title=escape(title),
        note=f'<p class="banner">{escape(note)}</p>' if note else "",
        remarks="".join(f"<p>{escape(remark)}</p>" for remark in remarks),
        links="".join(listed),
        clusters=_table(clusters, shown) if len(clusters) else _NONE,
        sheets="".join(_section(path, name, shown[name], evidence.get(name, {})) for name in shown) or "<p>None.</p>",
        settings="".join(
            f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in settings.items()
        ),
    )  # fmt: skip
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _link(page: Path, file: Path) -> str:
    """From a page to a file below it."""
    return quote(file.resolve().relative_to(page.resolve().parent).as_posix())


def _anchor(name: str) -> str:
    return f"cluster-{quote(name, safe='')}"


def _table(clusters: pd.DataFrame, shown: Collection[str]) -> str:
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(str(name).replace("_", " "))}</button></th>'
        for name in clusters.columns
    )
    rows = "".join(
        f"<tr>{''.join(_cell(str(name), value, shown) for name, value in row.items())}</tr>"
        for row in clusters.to_dict("records")
    )
    return f'<table id="clusters"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _name(name: str, shown: Collection[str]) -> str:
    """A name, with a link to where it is shown."""
    return f'<a href="#{escape(quote(_anchor(name)))}">{escape(name)}</a>' if name in shown else escape(name)


def _cell(column: str, value: object, shown: Collection[str]) -> str:
    if column == "cluster":
        return f'<th scope="row">{_name(str(value), shown)}</th>'
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "<td></td>"
    if column == "group":
        return f"<td>{_name(str(value), shown)}</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        return f'<td class="number" data-value="{value}" title="{value}">{text}</td>'
    return f"<td>{escape(str(value))}</td>"


def _section(page: Path, name: str, shown: Path | Mapping[str, Sequence[str]], evidence: Mapping[str, str]) -> str:
    line = " · ".join(f"{key} {value}" for key, value in evidence.items())
    if isinstance(shown, Path):
        link, alt = escape(_link(page, shown)), escape(f"Contact sheet of {name}: {line}")
        body = f'<p class="evidence">{escape(line)}</p>'
        body += f'<a class="sheet" href="{link}"><img loading="lazy" src="{link}" alt="{alt}"></a>'
    else:
        body = f"<p>{escape(line)}</p>"
        for heading, ids in shown.items():
            listed = " ".join(f"<code>{escape(each)}</code>" for each in ids)
            body += f"<h4>{escape(heading)}</h4><p>{listed or 'none'}</p>"
    return f'<section id="{escape(_anchor(name))}"><h3>{escape(name)}</h3>{body}</section>'
