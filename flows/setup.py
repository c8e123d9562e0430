"""`cac init`: a settings file and, where wanted, a file with a new linkage secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cac_core.errors import CacError, UsageError
from cac_core.keys import load_keyring, make_key_file
from cac_core.settings import Settings
from cac_core.settings_file import settings_text
from cac_core.tomlfile import faults_of
from flows.runtime.results_folder import require_new
from flows.summaries import InitSummary


@dataclass(frozen=True)
class InitRequest:
    """Arguments of `cac init`: the file, the keys to set, and whether to make the key file."""

    path: Path
    values: Mapping[str, Any]
    make_key: bool = False

    @property
    def key_file(self) -> Path | None:
        """The key file that the settings will name."""
        named = self.values.get("key_file")
        return None if named is None else Path(named)


def prepare_settings(request: InitRequest) -> str:
    """Check a request, and return the text of the settings file; writes nothing.

    Raises
    ------
    UsageError
        If a value is invalid, a file to be written exists, or a key file is missing or unusable.
    """
    require_new(request.path)
    try:
        Settings.model_validate(request.values)
    except ValidationError as error:
        raise UsageError(
            f"These settings are not possible: {faults_of(error, Settings)}.",
            "Correct that option.",
        ) from None
    key_file = request.key_file
    if request.make_key and key_file is None:
        raise UsageError("No key file is named.", "Name it with --key-file.")
    if key_file is not None and request.make_key:
        require_new(key_file)
    elif key_file is not None:
        _require_usable(key_file)
    return settings_text(request.values)


def write_settings(request: InitRequest) -> InitSummary:
    """Write the settings file, and the key file if it is wanted.

    Raises
    ------
    UsageError
        As `prepare_settings`; then nothing is written.
    CacError
        If a file cannot be written.
    """
    text = prepare_settings(request)
    try:
        handle = os.open(request.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        raise CacError(
            f"The settings file {request.path} cannot be written ({error.strerror}).",
            "Name another folder.",
        ) from None
    try:
        if request.make_key and request.key_file is not None:
            make_key_file(request.key_file)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
    except BaseException:
        request.path.unlink()
        raise
    key_file = None if request.key_file is None else str(request.key_file)
    return InitSummary(str(request.path), key_file, request.make_key)


def _require_usable(key_file: Path) -> None:
    if not key_file.exists():
        raise UsageError(
            f"The key file {key_file} does not exist.",
            "Add --make-key to make it with a new secret.",
        )
    load_keyring(key_file)
