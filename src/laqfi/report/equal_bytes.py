"""Which bytes a control and Fisher's choice have as many of, in the words of sentences, tables, figures and keys."""

from dataclasses import dataclass

from laqfi.records import ControlRow, ControlTable


@dataclass(frozen=True)
class EqualBytes:
    """One kind of size limit: `of` and `coding` as params.yaml has them.

    `where` follows "at equal bytes", `as_what` "smaller"; `axis` names an axis, `key` begins the keys of metrics.json.
    """

    of: str
    coding: str | None
    where: str
    as_what: str
    axis: str
    key: str

    def rows(self, table: ControlTable) -> list[ControlRow]:
        """Those of the table whose limit is of these bytes."""
        return [row for row in table.rows if (row.of, row.coding) == (self.of, self.coding)]

    def named(self, name: str) -> str:
        """The name of a table or a finding that there is once for each kind of bytes."""
        return name if self == MEMORY else f"{name}_{self.key}"

    def titled(self, title: str) -> str:
        return title if self == MEMORY else f"{title}, at equal bytes {self.where}"


MEMORY = EqualBytes("resident", None, "in memory", "in memory", "memory, times smaller than FP32's", "ratio")
FILE = EqualBytes("file", None, "of the file", "as a file", "file, times smaller than FP32's weights", "file")
CODED_FILE = EqualBytes(
    "file",
    "ans",
    "of the coded file",
    "as a coded file",
    "coded file, times smaller than FP32's weights",
    "coded_file",
)
KINDS = (MEMORY, FILE, CODED_FILE)


def every_name(name: str) -> tuple[str, ...]:
    """`name` for each kind of bytes."""
    return tuple(kind.named(name) for kind in KINDS)
