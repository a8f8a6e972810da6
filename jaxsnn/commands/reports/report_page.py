"""HTML of a report: the summary, tables that can be sorted, pictures, and the page around them.

All text is escaped here, so that a name in a file stays a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from jaxsnn.errors import UsageError, printable
from jaxsnn.version import __version__

if TYPE_CHECKING:
    from jaxsnn.plot import Picture

#: Maximum number of rows of a table; a note reports how many it omits.
_MAX_ROWS = 400

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:0 auto;max-width:72rem;
  padding:1rem 1.2rem 3rem}
h1{font-size:1.6rem;margin:.4rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;
  border-bottom:2px solid #0072b2;padding-bottom:.2rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
.verdict{font-size:1.1rem;padding:.6rem .9rem;border-left:6px solid #777;background:#f4f4f4;
  margin:.8rem 0}
.good{border-color:#009e73}.bad{border-color:#d55e00}
.figures{display:flex;flex-wrap:wrap;gap:.6rem;margin:.8rem 0}
.figures div{background:#f4f4f4;padding:.4rem .9rem;display:flex;flex-direction:column-reverse}
.figures dt{font-size:.85rem;color:#555}
.figures dd{margin:0;font-size:1.3rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;margin:.6rem 0 1rem}table{border-collapse:collapse;font-size:.92rem;
  font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .8rem .25rem .3rem;border-bottom:1px solid #ddd;
  vertical-align:top}
th[scope=row]{min-width:8rem}th[scope=row]+td{overflow-wrap:anywhere}
td.number,th.number{text-align:right}
th button{font:inherit;font-weight:600;background:none;border:0;padding:0;cursor:pointer;
  text-align:inherit}
th button::after{content:"\\a0\\2195";color:#999}
th[aria-sort=ascending] button::after{content:"\\a0\\2191";color:#222}
th[aria-sort=descending] button::after{content:"\\a0\\2193";color:#222}
pre{background:#f4f4f4;padding:.4rem .9rem;overflow-x:auto;font-size:.9rem;line-height:1.25}
figure{margin:1rem 0;overflow-x:auto}figcaption{font-size:.9rem;color:#555}
figure img,figure svg{max-width:100%;height:auto}figure img{min-width:40rem}
summary{cursor:pointer;font-weight:600;margin:1.2rem 0 .3rem}
nav{font-size:.95rem}nav a{margin-right:1rem}footer{margin-top:3rem;font-size:.85rem;color:#666}
"""

#: Script that sorts a table by the column whose heading is clicked, numbers by size; a second click
#: reverses the order.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const value = row => row.cells[head.cellIndex].dataset.value;
    for (const cell of head.parentElement.cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const rows = [...body.rows].sort((first, second) => {
      const a = value(first), b = value(second), difference = a - b;
      return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
    });
    body.append(...rows);
  });
}
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def words(text: Any) -> str:
    """Return text escaped for HTML."""
    return escape(printable(str(text)), quote=True)


def paragraph(text: Any) -> str:
    """Return a paragraph of text as HTML."""
    return f"<p>{words(text)}</p>"


def summary(result: str, key_figures: Mapping[str, Any], good: bool | None = None) -> str:
    """Return the top of a page as HTML.

    Args:
        result: the result in one sentence.
        key_figures: name -> value; those that are None are left out.
        good: whether the result is marked as a success or as a failure; None: neither.
    """
    kind = {True: " good", False: " bad", None: ""}[good]
    figures = "".join(
        f"<div><dt>{words(name)}</dt><dd>{words(in_words(value))}</dd></div>"
        for name, value in key_figures.items()
        if value is not None
    )
    return f'<p class="verdict{kind}">{words(result)}</p><dl class="figures">{figures}</dl>'


def listed(entries: Iterable[Any], empty: str) -> str:
    """Return a list of sentences as HTML, or the text for an empty list."""
    list_items = [f"<li>{words(entry)}</li>" for entry in entries]
    return f"<ul>{''.join(list_items)}</ul>" if list_items else paragraph(empty)


def in_words(value: Any) -> str:
    """Return a value as text for people: short numbers, yes or no, comma-separated lists."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "none"
    return str(value)


def facts(entries: Mapping[str, Any]) -> str:
    """Return names and values as an HTML table, one row each; values that are None are left out."""
    rows = [
        f'<tr><th scope="row">{words(name)}</th><td>{words(in_words(value))}</td></tr>'
        for name, value in entries.items()
        if value is not None
    ]
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an HTML table whose columns can be sorted by a click on their headings."""
    shown = rows[:_MAX_ROWS]
    numeric = [bool(rows) and all(_is_number(row[n]) for row in rows) for n in range(len(headings))]
    head = "".join(
        f'<th scope="col"{_kind(number)}><button type="button">{words(heading)}</button></th>'
        for heading, number in zip(headings, numeric, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(_cell(*pair) for pair in zip(row, numeric, strict=True))}</tr>"
        for row in shown
    )
    more = len(rows) - len(shown)
    omission = paragraph(f"{more} more rows are not shown.") if more else ""
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{omission}"
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _kind(number: bool) -> str:
    return ' class="number"' if number else ""


def _cell(value: Any, number: bool) -> str:
    shown_value = "" if value is None else in_words(value)
    return f'<td{_kind(number)} data-value="{words("" if value is None else value)}">{words(shown_value)}</td>'


def figure(draw: Callable[[], Picture], caption: str) -> str:
    """Return a picture with its caption as HTML, or the reason why it is missing, such as a missing
    matplotlib.
    """
    try:
        drawn = draw().as_html()
    except UsageError as error:
        return paragraph(f"No picture of {caption}: {error}.")
    return f"<figure>{drawn}<figcaption>{words(caption)}</figcaption></figure>"


def folded(heading: str, content: str) -> str:
    """Return HTML that is hidden until its heading is clicked, for long tables."""
    return f"<details><summary>{words(heading)}</summary>{content}</details>"


def page(title: str, top: str, sections: Mapping[str, str]) -> str:
    """Return the complete HTML page.

    Args:
        title: title of the page.
        top: HTML of the summary.
        sections: heading -> HTML.
    """
    marks = {heading: heading.lower().replace(" ", "-").replace(",", "") for heading in sections}
    links = "".join(f'<a href="#{mark}">{words(name)}</a>' for name, mark in marks.items())
    parts = "".join(
        f'<section id="{marks[name]}"><h2>{words(name)}</h2>{content}</section>'
        for name, content in sections.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{words(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{words(title)}</h1>{top}<nav>{links}</nav>"
        f"{parts}<footer>jaxsnn-nir {words(__version__)}. This page needs no other file and no "
        f"network.</footer><script>{_SCRIPT}</script></body></html>\n"
    )
