"""What `cac link` writes: its result, and drafts of mappings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from flows.cli.options import console, print_json, show

if TYPE_CHECKING:
    from flows.linkage_summaries import LinkageDryRun, LinkageSummary


def show_linkage(result: LinkageSummary | LinkageDryRun, *, as_json: bool, quiet: bool) -> None:
    """Write a linkage or its dry run: tables for people, with the warnings among them, or JSON.

    Beside JSON the warnings are lines on standard error too, unless `quiet`.
    """
    from flows.cli.linkage_tables import linkage_tables

    if not as_json:
        for part in linkage_tables(result):
            show(part)
        return
    print_json(result)
    if not quiet:
        for warning in result.warnings:
            _say(f"warning: {warning}")


def propose(extracts: Sequence[Path], out: Path | None) -> None:
    """Draft a mapping; relative paths in it start at the file, or at the current folder."""
    from cac_core.cohort.propose import propose_mapping

    if out is None:
        sys.stdout.write(propose_mapping(extracts, on_skipped=_say))
        return
    if out.exists():
        raise typer.BadParameter(f"{out} exists; name another file")
    out.write_text(propose_mapping(extracts, out.parent, _say), encoding="utf-8")
    _say(f"{out}: check it, then try it with: cac link --mapping {out} --dry-run")


def _say(text: str) -> None:
    console.print(Text(text), highlight=False, soft_wrap=True)
