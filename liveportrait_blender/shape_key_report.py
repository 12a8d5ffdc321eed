# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of driving a mesh's shape keys, to be told to the user."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 4  # names in a sentence


@dataclass
class Report:
    """Names of shape keys, by what happened to them."""

    mesh: str
    driven: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    basis: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    keyed: list[str] = field(default_factory=list)
    muted: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    clamped: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    still: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_warning(self) -> bool:
        """Whether something that was asked for was not done."""
        return bool(
            self.missing
            or self.doubled
            or self.basis
            or self.foreign
            or self.too_long
            or self.clamped
            or self.notes
        )

    def sentences(self) -> list[str]:
        """Everything, most important first."""
        found = [f'"{self.mesh}": {len(self.driven)} shape keys follow the performance.']
        for names, text in (
            (self.foreign, "kept the driver of your own: {}; choose Replace to take it away."),
            (self.missing, "no such shape key on the mesh: {}."),
            (self.too_long, "too many entries for a library override: {}; remove some, or make it local."),
            (self.doubled, "listed twice with the same channel, which counts once: {}."),
            (self.basis, "the basis cannot be driven: {}."),
            (self.replaced, "replaced a driver: {}."),
            ([f"{old} is now {new}" for old, new in self.renamed], "followed a new name: {}."),
            (self.keyed, "has keyframes, which the driver hides until it is removed: {}."),
            (self.muted, "muted on the mesh, so it will not be seen: {}."),
            (self.locked, "locked against sculpting, which driving does not mind: {}."),
            (self.clamped, "a library override keeps the range of the shape key, which is smaller: {}."),
            (self.widened, "widened the range of: {}."),
            (self.still, "does not move, because its channel cannot be told from the keypoints: {}."),
        ):
            if names:
                found.append(text.format(listed(names)))
        return [found[0], *(_capital(text) for text in found[1:]), *self.notes]


def listed(names: list[str]) -> str:
    """The first few of the names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
