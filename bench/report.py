"""The measurements of one device as a page of tables and a figure."""

from matplotlib.figure import Figure

from laqfi.report.plots.canvas import label, png
from laqfi.report.tables import as_markdown

MIB = 2**20
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#999999")
RESIDENT_LIMIT, TIME_LIMIT = 1.05, 1.3
NETWORKS = {
    "paper": "Paper scale: 37 M parameters, images of 32 × 32",
    "quick": "Profile `quick`: 0.6 M parameters, images of 8 × 8",
}
NOTES = """Weights are random. The time is the median of the repeats after a warm-up, computing in float32;
images/s for DDIM follow from it. FP32, in one batch, is timed anew with every case, in turn, and the ratio is to that:
how far its own is from 1 tells how steady the machine was.
The change of ε, the predicted noise, is relative to FP32's.
Resident weights of optimum-quanto are the tensors inside its own, its file is the state dict. It packs in the process
that is measured, so its peak on a CPU holds what that left behind. diffusers draws with a U-Net of its own, DDPM's, of
about as many parameters; its time is that of the whole call, images back on the CPU."""
PEAK = {
    "cpu": "Peak memory is the largest resident set of the case's own process while it samples,"
    " less what the process held before it loaded the model.",
    "cuda": "Peak memory is the most that tensors took on the GPU while the case sampled.",
}
KINDS = {  # what a bar is coloured by: the first word that its case's name holds
    "one image": "one image at a time",
    "compiled": "torch.compile, weights restored in every step",
    "aside": "as the stage draws, but in bf16 or in another layout",
    "drawn": "as the stage `sample` draws: compiled, in CUDA graphs, weights restored once",
    "quanto": "optimum-quanto",
    "diffusers": "diffusers, its DDIMPipeline",
    "": "laqfi",
}


def of_scale(results: dict, scale: str) -> dict[str, dict]:
    return {row["case"]: row for row in results["rows"] if row["scale"] == scale}


def measured(results: dict, scale: str) -> dict[str, dict]:
    return {name: row for name, row in of_scale(results, scale).items() if "error" not in row}


def scales(results: dict) -> list[str]:
    return list(dict.fromkeys(row["scale"] for row in results["rows"]))


def peak_bytes(row: dict) -> int:
    return row["peak_bytes"] - row["start_bytes"]


def images_per_second(row: dict, steps: int) -> float:
    return 1 / (row["seconds_per_image_step"] * steps)


def cells(row: dict) -> dict[str, str]:
    """One row of the table; a case that failed has nothing but the reason."""
    if "error" in row:
        return {"remark": row["error"]}
    return {
        "batch": f"{row['batch']}",
        "resident weights": f"{row['resident_bytes'] / MIB:.2f} MiB",
        "resident ÷ file": f"{row['resident_bytes'] / row['payload_bytes']:.3f}",
        "peak memory": f"{peak_bytes(row) / MIB:.0f} MiB",
        "ms per image and step": f"{1000 * row['seconds_per_image_step']:.3g}",
        "time ÷ FP32's": f"{row['times_fp32']:.2f}",
        "first step": f"{row['warm_up_seconds']:.1f} s",
        "images/s, 20 steps": f"{images_per_second(row, 20):.3g}",
        "images/s, 50 steps": f"{images_per_second(row, 50):.3g}",
        "change of ε, RMS": deviation(row["rms_deviation"]),
        "largest": deviation(row["max_deviation"]),
        "remark": row["remark"],
    }


def deviation(found: float | None) -> str:
    """None: another network, whose prediction has nothing to be held against."""
    return "" if found is None else f"{found:.1e}"


def table(rows: dict[str, dict]) -> str:
    found = [{"case": name} | cells(row) for name, row in rows.items()]
    columns = list(dict.fromkeys(column for row in sorted(found, key=len, reverse=True) for column in row))
    return as_markdown([{column: row.get(column, "") for column in columns} for row in found])


def verdict(text: str, values: dict[str, float], limit: float) -> str:
    if not values:
        return f"- {text} at most {limit} ×: not measured.\n"
    met = "met" if max(values.values()) <= limit else "not met"
    return f"- {text} at most {limit} ×: {met} ({', '.join(f'{n} {v:.3f}' for n, v in values.items())}).\n"


def verdicts(results: dict) -> str:
    """The two targets, and what was found of them."""
    packed = {
        f"{scale} {name}": row["resident_bytes"] / row["payload_bytes"]
        for scale in scales(results)
        for name, row in measured(results, scale).items()
        if name in ("fp16", "int8", "int4")
    }
    paper = measured(results, "paper")
    times = {name: paper[name]["times_fp32"] for name in ("int8", "int4") if name in paper}
    return verdict("Resident weights, of the file's payload,", packed, RESIDENT_LIMIT) + verdict(
        "Time per image of packed weights, of FP32's, at paper scale and batch 64,", times, TIME_LIMIT
    )


def page(results: dict) -> str:
    threads = f", {results['threads']} threads" if results["device"] == "cpu" else ""
    parts = [
        f"# Memory and speed on {results['name']}\n",
        f"PyTorch {results['torch']}{threads}; measured in {results['run_seconds']:.0f} s.\n",
        verdicts(results),
    ]
    for scale in scales(results):
        parts += [f"## {NETWORKS[scale]}\n", table(of_scale(results, scale))]
    return "\n".join([*parts, NOTES, PEAK[results["device"]]]) + "\n"


def kind_of(case: str) -> str:
    return next(kind for word, kind in KINDS.items() if word in case)


def bars(axis, rows: dict[str, dict], title: str, unit: str, values: list[float]) -> None:
    """One horizontal bar per case, from the top, its value beside it."""
    label(axis, title, unit, "")
    colours = dict(zip(reversed(KINDS.values()), COLOURS, strict=True))
    drawn = axis.barh(list(rows), values, color=[colours[kind_of(name)] for name in rows])
    axis.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.18)


def figure(results: dict) -> bytes:
    """Resident weights, peak memory and time of every case that was measured, one line of panels per scale."""
    shown = scales(results)
    heights = [max(4.2, 0.36 * len(measured(results, scale))) for scale in shown]
    picture = Figure(figsize=(16, sum(heights) + 0.8), layout="constrained")
    panels = picture.subplots(len(shown), 3, squeeze=False, height_ratios=heights)
    for scale, (left, middle, right) in zip(shown, panels, strict=True):
        rows = measured(results, scale)
        network = NETWORKS[scale].split(":")[0].replace("`", "")
        bars(left, rows, f"{network}: resident weights", "MiB", [r["resident_bytes"] / MIB for r in rows.values()])
        bars(middle, rows, "Peak memory while sampling", "MiB", [peak_bytes(r) / MIB for r in rows.values()])
        times = [1000 * r["seconds_per_image_step"] for r in rows.values()]
        bars(right, rows, "Time", "ms per image and denoising step (lower is better)", times)
        for axis in (middle, right):
            axis.tick_params(labelleft=False)
    picture.suptitle(f"Memory and speed on {results['name']}, PyTorch {results['torch']}", fontsize=14)
    return png(picture)
