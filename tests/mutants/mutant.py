"""What a planted defect is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutant:
    """A plausible simplification of the product, and the tests that must not let it pass.

    ``old`` is in ``file`` exactly once; ``selection`` is what pytest is asked to run.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    selection: tuple[str, ...]

    def staleness(self, tree: Path) -> str | None:
        """Return why the mutant does not fit the tree any more; None if it does."""
        path = tree / self.file
        if not path.is_file():
            return f"{self.file} is gone"
        times = path.read_text("utf-8").count(self.old)
        return None if times == 1 else f"its old text is {times} times in {self.file}"

    def plant(self, tree: Path) -> None:
        """Write the defect into a copy of the tree."""
        path = tree / self.file
        path.write_text(path.read_text("utf-8").replace(self.old, self.new), "utf-8")
