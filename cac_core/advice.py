"""What to do about each code of the tables, from `advice.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from schemas.codes import DescribedCode


def advice(code: DescribedCode) -> str:
    """What to do about a code of `schemas.codes`, in one or two sentences.

    Raises
    ------
    KeyError
        If the codes of that kind have no advice.
    """
    return _advice()[type(code).__name__][code.value]


@cache
def _advice() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("cac_core").joinpath("advice.toml").read_text(encoding="utf-8"))
