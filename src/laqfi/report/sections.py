"""Which question each figure and table answers, and what is said below a figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from laqfi.report.alike import Alike
from laqfi.report.equal_bytes import every_name
from laqfi.report.findings import Finding
from laqfi.report.page import Picture, Section, Shown
from laqfi.report.tables import ONLY_IN_CSV, Row, Table


@dataclass(frozen=True)
class Question:
    """Names of what answers it: findings, figures and tables, the most telling first."""

    text: str
    findings: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


QUESTIONS = {
    "cost": Question(
        "What did it cost?",
        ("cost", "again"),
        ("size_fid", "size_psnr", "samples"),
        ("variants", "measures", "headlines", "headline_measures", "second_network"),
    ),
    "fisher": Question(
        "Does Fisher help, and from where on?",
        (*every_name("fisher"), "floats"),
        ("controls",),
        (*every_name("against_fisher"), *every_name("gains"), *every_name("controls"), "floats"),
    ),
    "recipes": Question("What do the field's methods add?", (), (), ("recipes",)),
    "layers": Question(
        "Which layers, and when?",
        ("layers",),
        ("fisher_timesteps_gauss_newton", "fisher_timesteps", "fisher_tensors", "magnitude", "bits"),
        ("layers",),
    ),
    "limit": Question("How far from the limit?", ("limit",), ("over_bound",), ("bound",)),
    "prediction": Question(
        "Can the prediction be trusted?", ("prediction",), ("predicted", "noise_error"), ("prediction",)
    ),
    "making": Question("How was it made and measured?", (), ("loss",)),
}
CAPTIONS = {  # by figure: what it shows in a few words, and in a sentence
    "size_fid": (
        "size against FID",
        "Times smaller than FP32 against FID: the paired difference to FP32, and the FID itself. Bars are the 95 %"
        " interval of each alone; the grey band is FP32's own.",
    ),
    "size_psnr": (
        "size against fidelity to FP32's images",
        "Times smaller than FP32 against the PSNR of the median image to FP32's from the same noise, with its 95 %"
        " interval. Open marks are controls, each at the size of its own file: their formats were chosen by another"
        " idea of importance than the Fisher information, for as many bytes as the mark's title says.",
    ),
    "samples": (
        "images, and their difference to FP32's",
        "Real images, FP32's, and what a few variants draw from the same noise. Below each image is its difference to"
        " FP32's (red: brighter, blue: darker), enlarged by the factor beside it. The variants: of those that none"
        " exceeds in both size and PSNR of all images at most three, evenly spread, and the one furthest from FP32.",
    ),
    "controls": (
        "other ideas of importance at the same size",
        "Models of the same size, in memory or of their file as the axis says, their formats chosen by the Fisher"
        " information and by other ideas of importance, with the same program and the same rounding.",
    ),
    "fisher_timesteps_gauss_newton": (
        "Gauss–Newton Fisher information along the timesteps",
        "Gauss–Newton Fisher information of each layer along the timesteps; it does not depend on how well the model"
        " fits.",
    ),
    "fisher_timesteps": (
        "empirical Fisher information along the timesteps",
        "Empirical Fisher information of each layer along the timesteps.",
    ),
    "fisher_tensors": (
        "Fisher information of each weight tensor",
        "Fisher information of each weight tensor, at the timestep the policies score by.",
    ),
    "magnitude": ("weight magnitude map", "Weight magnitude map: mean |w| of each weight tensor."),
    "bits": ("bits of each tensor", "Bits per weight of each tensor in each variant."),
    "over_bound": (
        "bits above the bound",
        "How many bits per weight the integer tensors take, and the fewest that reverse water-filling allows at the"
        " same predicted error.",
    ),
    "predicted": (
        "predicted and measured change",
        "The change of the predicted noise that the Fisher information predicts, against the one measured and against"
        " the error of the median image. The prediction leaves out that the errors of GPTQ make up for each other.",
    ),
    "noise_error": (
        "change of the predicted noise along the timesteps",
        "How far the predicted noise moves from FP32's on the same noised held-out images.",
    ),
    "loss": ("training loss", "Training loss."),
}
FURTHER = {"variants": "measures", "headlines": "headline_measures"}  # tables that are split, and their second part
MEASURES = (*ONLY_IN_CSV, "size band", "FID band", "images per seed", "real-vs-real FID")  # columns of second parts
MEASURES_RULE = (
    "KID by the same features as FID; “PSNR of all” is that of all images together, which a few bad ones rule."
)


def split(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The tables of variants and of what is drawn again as two each, so that none is wider than a page."""
    return {
        **tables,
        **{name: replace(tables[name], rows=columns(tables[name], first_read)) for name in FURTHER},
        **{
            further: Table(f"{tables[name].title}: further measures", columns(tables[name], read_later), MEASURES_RULE)
            for name, further in FURTHER.items()
        },
    }


def columns(table: Table, keep: Callable[[str], bool]) -> list[Row]:
    return [{key: cell for key, cell in row.items() if keep(key)} for row in table.rows]


def first_read(column: str) -> bool:
    return column not in MEASURES


def read_later(column: str) -> bool:
    return column in (*MEASURES, "drawn", "variant")


def sections(
    findings: Mapping[str, Finding],
    figures: Mapping[str, str],
    tables: Mapping[str, Table],
    alike: Alike,
    notes: Mapping[str, str],
    measured: Mapping[str, str],
) -> list[Section]:
    """Figures as SVG by their names, tables by theirs; `notes` are words of explanation below the table they name.

    `measured` are the facts of how the run was made.

    Raises KeyError for a figure that is missing. A finding that the run says nothing of, a table without rows, and a
    question that nothing answers are left out.
    """
    return [
        Section(
            key=key,
            question=question.text,
            findings=[findings[name] for name in question.findings if name in findings],
            figures=[Picture(name, *CAPTIONS[name], figures[name]) for name in question.figures],
            tables=[Shown(tables[name], alike, notes.get(name, "")) for name in question.tables if tables[name].rows],
            facts=measured if key == "making" else {},
        )
        for key, question in QUESTIONS.items()
        if question.figures or any(tables[name].rows for name in question.tables)
    ]
