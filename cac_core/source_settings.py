"""Settings of sources other than plain folders: archives that are unpacked, and PACS."""

from __future__ import annotations

import os
from pathlib import Path

from cac_core.settings_section import Section, key

_PATHS = ("cache",)


class SourceSettings(Section):
    """How studies come from archives that are no plain folders."""

    cache: Path | None = key(
        None,
        "private folder for what is unpacked or pulled; without a value, one of the user",
        '"/data/cac-cache"',
    )
    unpacked_gb: float = key(
        64.0, "largest unpacked size of one zip or tar archive, gigabytes", gt=0
    )

    def anchored(self, folder: Path) -> SourceSettings:
        """With relative paths against the folder of the settings file."""
        paths = {name: getattr(self, name) for name in _PATHS}
        return self.model_copy(
            update={name: folder / path for name, path in paths.items() if path is not None}
        )

    @property
    def folder(self) -> Path:
        """The folder for what is unpacked or pulled; holds identifiers, for its owner only."""
        if self.cache is not None:
            return self.cache
        data = Path(os.environ.get("XDG_DATA_HOME", ""))
        data = data if data.is_absolute() else Path.home() / ".local" / "share"
        return data / "cac-cohort" / "sources"
