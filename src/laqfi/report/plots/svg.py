"""A figure as SVG inside a page: its marks have titles, its legend is for a script to listen to, its bytes are stable.

Artists say in their group id what they stand for (`canvas.name`, `canvas.legend`); here that becomes attributes:
`data-mark` with the key and a `<title>`, or `data-legend` with the key.
"""

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from laqfi.report.plots.canvas import LEGEND, MARK, SEPARATOR, lay_out

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
NO_STAMPS = dict.fromkeys(("Creator", "Date", "Format", "Type"))
FONTS = re.compile(r"font-family: [^;]*;? ?")
REFERENCE = re.compile(r"url\(#([^)]+)\)")


def svg(figure: Figure, name: str, caption: str) -> str:
    """The figure called `name` as an element `svg` described by its caption.

    Its ids are its own, so that several stand in one page.
    """
    lay_out(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "path.simplify": True}):
        figure.savefig(buffer, format="svg", metadata=NO_STAMPS)
    root = ElementTree.fromstring(buffer.getvalue())
    drop_styles_for_all(root)
    for element in root.iter():
        say_what_it_stands_for(element)
        slim(element)
    drop_unused_ids(root)
    root.set("role", "img")
    root.set("aria-label", caption)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def say_what_it_stands_for(element: ElementTree.Element) -> None:
    kind, *rest = element.get("id", "").split(SEPARATOR, 2)
    if len(rest) < 2 or kind not in (MARK, LEGEND):
        return
    key, title = rest
    del element.attrib["id"]
    element.set(f"data-{kind}", key)
    if kind == MARK:
        said = ElementTree.Element(f"{{{SVG}}}title")
        said.text = title
        element.insert(0, said)


def slim(element: ElementTree.Element) -> None:
    """Without indents, and without the list of fonts of every text: the page says it once."""
    if "style" in element.attrib:
        element.set("style", FONTS.sub("", element.get("style")))
    if element.tag.removeprefix(f"{{{SVG}}}") not in ("text", "tspan", "title"):
        element.text = (element.text or "").strip()
    element.tail = (element.tail or "").strip()


def drop_styles_for_all(root: ElementTree.Element) -> None:
    """A style sheet of a figure would rule the whole page; the page's own says the same."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)


def drop_unused_ids(root: ElementTree.Element) -> None:
    """Those that count artists are the same in every figure."""
    used = {element.get(f"{{{XLINK}}}href", "").removeprefix("#") for element in root.iter()}
    for element in root.iter():
        for value in element.attrib.values():
            used |= set(REFERENCE.findall(value))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
