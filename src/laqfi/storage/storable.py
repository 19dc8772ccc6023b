"""Which models can be stored: said before anything is measured, rounded or written."""

from torch import nn
from torch.nn.modules import module as every
from torch.nn.utils.parametrize import is_parametrized

from laqfi.base.errors import LaqfiError
from laqfi.storage.attributes import check_attributes
from laqfi.storage.kinds import BATCH_NORMS, CALLS, NORMS, full_name
from laqfi.storage.modules import StoredLayer

CONTAINERS = (nn.ParameterList, nn.ParameterDict)


def check_storable(model: nn.Module) -> None:
    """Raises LaqfiError, with the name of the layer, for a model that cannot be stored.

    Parameters may be those of the layers in `CALLS`, and bare ones: of modules of one's own, which stay in float32.
    """
    if every._global_forward_hooks or every._global_forward_pre_hooks:
        raise LaqfiError("PyTorch: has a forward hook for all modules, allowed are hooks of the modules that need them")
    for path, module in model.named_modules():
        name = path or "the model"
        if isinstance(module, StoredLayer):
            raise LaqfiError(f"{name}: is stored already, allowed is a model of ordinary layers")
        if is_parametrized(module):
            raise LaqfiError(
                f"{name}: has a parametrization, allowed is a plain weight: remove_parametrizations makes it one"
            )
        if any(True for _ in module.parameters(recurse=False)):
            check_kind(name, module)
        if isinstance(module, BATCH_NORMS) and module.running_mean is None:
            raise LaqfiError(f"{name}: has no running statistics, allowed is a BatchNorm that has")
    check_parameters(model)
    check_attributes(model)


def check_kind(name: str, module: nn.Module) -> None:
    """Raises LaqfiError for a layer with parameters of its own that is of no known kind."""
    kind, own = type(module), [key for key, _ in module.named_parameters(recurse=False)]
    if kind in CALLS:
        if replaced := [key for key in vars(module) if callable(vars(module)[key]) and callable(getattr(kind, key, 0))]:
            raise LaqfiError(f"{name}: has a {replaced[0]!r} of its own, allowed is that of its kind: nothing replaced")
        if unknown := sorted(set(own) - {"weight", "bias"}):
            raise LaqfiError(f"{name}: holds {unknown[0]!r}, allowed are weight and bias, without norm or mask")
        if getattr(module, "max_norm", None) is not None:
            found = f"{module.max_norm:g}"
            raise LaqfiError(f"{name}: has max_norm {found}, by which a call overwrites its weight, allowed is None")
        if "weight" not in own:
            raise LaqfiError(f"{name}: holds a bias and no weight of its own, allowed are both or a weight alone")
    elif kind not in CONTAINERS and (isinstance(module, tuple(CALLS)) or kind.__module__.startswith("torch.")):
        allowed = ", ".join(one.__name__ for one in CALLS)
        raise LaqfiError(f"{name}: a {kind.__name__} cannot be stored, allowed are {allowed}, not subclasses of them")


def check_parameters(model: nn.Module) -> None:
    """Raises LaqfiError if there are none, and for one that holds no real numbers, none at all, or cannot learn."""
    parameters = dict(model.named_parameters())
    if not parameters:
        raise LaqfiError("the model holds no parameters, allowed is a model with weights")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise LaqfiError(f"{name}: is {parameter.dtype}, allowed are floating-point numbers")
        if parameter.is_meta:
            raise LaqfiError(f"{name}: is on the device meta, allowed is one that holds values")
        if parameter.is_inference():
            raise LaqfiError(f"{name}: was made in inference mode, allowed is one made outside of it")
        if not parameter.numel():
            raise LaqfiError(f"{name}: holds no values")


def bare_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters outside of layers, which stay in float32.

    One that a layer shares with a module of one's own is bare too: that module reads the tensor itself.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]
        for module in model.modules()
        if type(module) not in CALLS
        for parameter in module.parameters(recurse=False)
    }


def norm_parameters(model: nn.Module) -> set[str]:
    """Names of what belongs to norms, however many axes it has."""
    return {
        full_name(path, name)
        for path, module in model.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
