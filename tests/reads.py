"""Record which of its settings a stage reads."""

from pydantic import BaseModel

from laqfi.base.block import Block
from laqfi.data.params import Dataset
from laqfi.quant.params import Variant

OPEN = Variant | Dataset  # blocks whose keys a function declares


class Keys(dict):
    """A block whose keys are names: going over them depends on the block as a whole, taking one does not."""

    def __init__(self, items, read):
        super().__init__(items)
        self.read = read

    def __iter__(self):
        self.read()
        return super().__iter__()

    def keys(self):
        self.read()
        return super().keys()

    def values(self):
        self.read()
        return super().values()

    def items(self):
        self.read()
        return super().items()


class Reads:
    """Places in the settings that were read, from values given to `watch`: before that nothing counts as read.

    `hashed` are those that went as a whole into JSON, to be told apart from other runs; `found` all others.
    """

    def __init__(self, monkeypatch):
        self.found: set[str] = set()
        self.hashed: set[str] = set()
        self.places: dict[int, tuple[BaseModel, str, set[str]]] = {}  # the block too, so that its id stays its own
        for kind in (Block, Variant, Dataset):
            monkeypatch.setattr(kind, "__getattribute__", lambda block, name: self.get(block, name), raising=False)
        monkeypatch.setattr(Block, "model_dump", self.dumping(Block.model_dump))
        monkeypatch.setattr(Block, "model_dump_json", self.hashing(self.dumping(Block.model_dump_json)))
        monkeypatch.setattr(Block, "model_copy", self.copying(Block.model_copy))

    def watch(self, value, place: str):
        """What is no block counts as read."""
        if isinstance(value, Block | OPEN):
            self.place(value, place)
        else:
            self.found |= {f"{place}.{key}" for key in value} if isinstance(value, dict) and value else {place}
        return value

    def place(self, value, place: str) -> None:
        """Remember where the blocks in `value` stand."""
        if isinstance(value, Block | OPEN):
            self.places[id(value)] = (value, place, set())
            for name, inside in list(vars(value).items()):
                where = f"{place}.{name}".strip(".")
                self.place(inside, where)
                if isinstance(inside, dict):
                    vars(value)[name] = Keys(inside, lambda where=where: self.found.add(where))
        elif isinstance(value, dict | list):
            for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
                self.place(inside, f"{place}.{key}")

    def get(self, block: BaseModel, name: str):
        value = object.__getattribute__(block, name)
        _, place, hidden = self.places.get(id(block), (None, None, ()))
        leaf = name in type(block).model_fields and not isinstance(value, Block | Keys) and name not in hidden
        if place is not None and (leaf or name == "model_extra"):
            self.found.add(place if name == "model_extra" else f"{place}.{name}")
        return value

    def leaves(self) -> set[str]:
        """All there is to read in the blocks, values left to their defaults included."""
        return {
            f"{place}.{name}"
            for block, place, _ in self.places.values()
            if place
            for name in type(block).model_fields
            if not isinstance(vars(block)[name], Block)
        }

    def dumping(self, original):
        def dump(block, *, include=None, exclude=None, **how):
            for name in set(include or type(block).model_fields) - set(exclude or ()):
                if isinstance(value := getattr(block, name), Block):
                    value.model_dump()
            return original(block, include=include, exclude=exclude, **how)

        return dump

    def hashing(self, original):
        def dump(block, **how):
            found, self.found = self.found, self.hashed
            try:
                return original(block, **how)
            finally:
                self.found = found

        return dump

    def copying(self, original):
        """The fields of a copy stand where the original's do, but for those it was given anew."""

        def copy(block, *, update=None, **how):
            made = original(block, update=update, **how)
            if id(block) in self.places:
                _, place, hidden = self.places[id(block)]
                self.places[id(made)] = (made, place, hidden | set(update or ()))
            return made

        return copy
