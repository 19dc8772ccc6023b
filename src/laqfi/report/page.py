"""The report as one HTML file with its pictures inside."""

from base64 import b64encode

from jinja2 import Environment, PackageLoader, StrictUndefined

CAPTIONS = {
    "samples": "Real images, and what every variant draws from the same noise.",
    "size_fid": "Size against FID. Bars are 95 % confidence intervals; the band is that of FP32.",
    "size_psnr": "Times smaller against PSNR to FP32's images from the same noise. Open marks are controls: models of"
    " the same size whose formats were chosen by another idea of importance than the Fisher information.",
    "controls": "Models of the same size, their formats chosen by the Fisher information and by other ideas of"
    " importance, with the same program and the same rounding.",
    "over_bound": "How many bits per weight the integer tensors take, and the fewest that reverse water-filling allows"
    " at the same predicted error.",
    "bits": "Bits per weight of each tensor in each variant.",
    "predicted": "The change of the predicted noise that the Fisher information predicts, and the one measured."
    " GPTQ changes it less than predicted: the prediction leaves out that its errors cancel.",
    "noise_error": "How far the predicted noise moves from FP32's on the same noised held-out images.",
    "fisher_timesteps": "Empirical Fisher information of each layer along the timesteps. Sampling ends at t = 1.",
    "fisher_timesteps_gauss_newton": "The same for the Gauss–Newton Fisher, which does not depend on the fit.",
    "fisher_tensors": "Fisher information of each weight tensor, at the timestep the policies score by.",
    "magnitude": "Weight magnitude map: mean |w| of each weight tensor.",
    "loss": "Training loss.",
}


def render(facts: dict[str, str], tables: dict[str, list[dict[str, str]]], figures: dict[str, bytes]) -> str:
    """Facts, tables by their titles, and figures (PNG bytes by name), as one page by itself."""
    environment = Environment(loader=PackageLoader("laqfi", "report"), autoescape=True, undefined=StrictUndefined)
    pictures = [
        {"name": name, "caption": caption, "data": b64encode(figures[name]).decode()}
        for name, caption in CAPTIONS.items()
    ]
    return environment.get_template("page.html.j2").render(facts=facts, tables=tables, pictures=pictures)
