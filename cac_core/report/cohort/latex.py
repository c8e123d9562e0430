"""Tables in LaTeX (packages booktabs, longtable and caption), as the page shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cac_core.report.cohort.sections import cell_text, cell_texts
from cac_core.report.page import DataTable
from cac_core.report.table_rows import INDENT, variables

#: Signs with a meaning in LaTeX, and those that its fonts lack outside formulas.
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", INDENT: r"\quad ",
    "\N{DAGGER}": r"\textdagger{}", "\N{DOUBLE DAGGER}": r"\textdaggerdbl{}",
    "\N{EN DASH}": "--", "\N{EM DASH}": "---", "\N{NO-BREAK SPACE}": "~",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MINUS SIGN}": "$-$", "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$", "\N{SUPERSCRIPT TWO}": "$^2$",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
}  # fmt: skip
#: A column of text with a longer cell is as wide as `_SHARE` of the line, and wraps.
_LONG, _SHARE = 32, 0.75
_PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{array,booktabs,caption,longtable}
\captionsetup{justification=raggedright,singlelinecheck=false,labelformat=empty}
\setlength{\tabcolsep}{3pt}
\setlength{\LTleft}{0pt}
\begin{document}
"""


def latex_table(table: DataTable) -> str:
    """One table, to be included where the packages are loaded; pages break between variables."""
    rows = cell_texts(table)
    header = " & ".join(latex_text(cell_text(column.title)) for column in table.columns) + r" \\"
    written = [
        r"\begingroup\footnotesize",
        rf"\begin{{longtable}}{{{_columns(table, rows)}}}",
        rf"\caption{{{latex_text(table.caption)}}}\label{{tab:{table.identifier}}}\\",
        rf"\toprule {header} \midrule \endfirsthead",
        rf"\toprule {header} \midrule \endhead",
        r"\bottomrule \endlastfoot",
    ]
    for group in variables([row[0] for row in rows]):
        for at in group:
            end = r"\\" if at == group[-1] else r"\\*"
            # A line must not begin with a bracket, which \\ would take for its argument.
            written.append("{}" + " & ".join(latex_text(cell) for cell in rows[at]) + f" {end}")
    if not rows:
        written.append(latex_text(table.empty) + r" \\")
    written.append(r"\end{longtable}")
    if table.note:
        written.append(rf"\noindent {latex_text(cell_text(table.note))}\par\bigskip")
    return "\n".join([*written, r"\endgroup", ""])


def latex_document(names: Iterable[str]) -> str:
    """A document that shows the tables of these files."""
    shown = "".join(rf"\input{{{name}}}" + "\n" for name in names)
    return _PREAMBLE + shown + "\\end{document}\n"


def latex_text(text: str) -> str:
    """Text in which no sign has a meaning for LaTeX."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def _columns(table: DataTable, rows: Sequence[Sequence[str]]) -> str:
    """Alignment of the columns: numbers at the right; long texts share the line and wrap."""
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(len(table.columns))]
    long = [
        at for at, column in enumerate(table.columns) if widths[at] > _LONG and not column.numeric
    ]
    total = sum(min(widths[at], 3 * _LONG) for at in long)
    kinds = []
    for at, column in enumerate(table.columns):
        if at in long:
            share = _SHARE * min(widths[at], 3 * _LONG) / total
            share *= min(1.0, 0.35 + 0.2 * len(long))
            kinds.append(rf">{{\raggedright\arraybackslash}}p{{{share:.2f}\linewidth}}")
        else:
            kinds.append("r" if column.numeric else "l")
    return "".join(kinds)
