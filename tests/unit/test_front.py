"""The README's figure: every kind where its reports say, and the line along the best of each."""

import json

from front import KINDS, SAME, Place, best, front, places
from laqfi.report.plots.canvas import png


def written(folder) -> None:
    """Reports in which every kind has two members, and what does not belong to any."""
    for kind in KINDS:
        path = folder / kind.report
        if path.suffix:
            rows = [{"case": f"{kind.names[0]} {n}", "bytes": 1000 // n, "median_psnr": 50.0 / n} for n in (2, 4)]
            found = (
                json.loads(path.read_text())
                if path.exists()
                else {"networks": [{"title": "quick", "bytes": 1000, "rows": []}]}
            )
            found["networks"][0]["rows"] += [
                *rows,
                {"case": f"{kind.names[0]} 8", "error": "none"},
                {"case": "laqfi", "bytes": 1, "median_psnr": 1},
            ]
        else:
            path = path / "metrics.json"
            found = json.loads(path.read_text()) if path.exists() else {"variants": {"fp32": {"file_bytes": 1200}}}
            found["variants"] |= {
                f"{kind.names[0]}{end}": {"file_bytes": 600, "median_psnr": 40.0} for end in ("", "_coded", "_nearest")
            }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))


def test_every_kind_stands_where_its_reports_say(tmp_path):
    written(tmp_path)
    for kind in KINDS:
        expected = [Place(2.0, 25.0), Place(4.0, 12.5)] if kind.report.endswith(".json") else [Place(2.0, 40.0)]
        assert places(kind, tmp_path) == expected, kind.title
    assert png(front(tmp_path)) == png(front(tmp_path))


def test_the_line_leaves_out_what_something_as_small_is_nearer_than():
    found = [Place(1.0, SAME), Place(2.0, 40.0), Place(3.0, 45.0), Place(3.0, 30.0), Place(4.0, 20.0)]
    assert best(found) == [Place(1.0, SAME), Place(3.0, 45.0), Place(4.0, 20.0)]
