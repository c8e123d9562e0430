"""What is fuzzed: reader of headers, assembler and decoders, registry reader, and `receivers`.

Each target takes a mutated input and must come back with a row, a volume or an error of its own
kind; anything else is a finding.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import duckdb
from pydicom.uid import UID

from cac_core.cohort.delimited import TextFile, check_lines, clean_lines, header_of
from cac_core.cohort.extract_rows import load_rows
from cac_core.cohort.extracts import find_extracts
from cac_core.cohort.mapping import Source
from cac_core.dicom.header import read_header
from cac_core.dicom.limits import HeaderLimits, ReadLimits
from cac_core.dicom.volume import read_volume
from cac_core.errors import CacError, StudyError
from cac_core.keys import Keyring
from tests.builders.ct_series import write_ct_series, write_enhanced_ct
from tests.builders.dicom_files import ct_dataset, write_dicom
from tests.fuzz.mutations import mutated, pydicom_files
from tests.fuzz.receivers import Receivers

#: Bytes of a seed that are mutated: the header and the beginning of the pixels.
_HEAD = 65536
#: Planted in the headers that are written here, and never in a row.
NAME, NUMBER = "Quixzotl^Wbmvra", "MRN 8675309"
_KEYRING = Keyring(b"a secret of the fuzzer only")
_SMALL = ReadLimits(max_pixels=2**20, max_bytes=2**23, max_inflated_bytes=2**23)
_EXTRACT = (
    b"patient_id,study_date,age_years,sex\n"
    + b"".join(b"P%03d,2011-02-%02d,%d,M\n" % (n, 1 + n % 28, 40 + n % 50) for n in range(40))
    + b'P900,2011-02-03,"6,1","F"\nP901,"2011-\n02-03",61,F\n'
)


class LeakError(Exception):
    """A planted identifier stands in an output."""


class Targets:
    """The targets and their seeds, made once in a folder.

    Parameters
    ----------
    folder : a working folder, best in memory.
    shared : folder of real files; left out where it is absent.
    """

    #: Share of each target among the inputs.
    shares: ClassVar[dict[str, float]] = {
        "header": 30,
        "assembler": 10,
        "lines": 12,
        "rows": 0.5,
        "multipart": 16,
        "metadata": 10,
        "identity": 12,
        "dicomdir": 5,
        "static": 3,
        "archive": 1.5,
    }

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        self.one = folder / "input"
        self.files = _seed_files(folder, shared)
        self.series = _seed_series(folder)
        planted = {"PatientName": NAME, "PatientID": NUMBER, "SeriesDescription": f"CTAC {NUMBER}"}
        self.receivers = Receivers(folder, _KEYRING, planted)
        self.scratch = folder / "scratch"
        self.scratch.mkdir(exist_ok=True)
        values = {"name": "fuzz", "table": "clinical", "files": str(folder / "rows.csv")}
        columns = {name: name for name in ("patient_id", "study_date", "age_years", "sex")}
        self.source = Source.model_validate(values | {"columns": columns})

    def run(self, seed: int, number: int) -> str:
        """Run the input of this number; returns the name of its target."""
        rng = random.Random(f"{seed}:{number}")
        (name,) = rng.choices(list(self.shares), list(self.shares.values()))
        run: Callable[[random.Random], object] = getattr(self, f"_{name}", None) or getattr(
            self.receivers, name
        )
        run(rng)
        return name

    def _metadata(self, rng: random.Random) -> None:
        _require_no_name(self.receivers.metadata(rng))

    def _header(self, rng: random.Random) -> None:
        self.one.write_bytes(mutated(rng.choice(self.files), rng, dicom=True))
        row = read_header(str(self.one), _KEYRING, HeaderLimits())
        _require_no_name(row)

    def _assembler(self, rng: random.Random) -> None:
        paths = rng.choice(self.series)
        changed = rng.sample(range(len(paths)), rng.choice((1, 1, min(3, len(paths)))))
        used = list(paths)
        for number in changed:
            data = mutated(paths[number].read_bytes(), rng, dicom=True)
            used[number] = self.folder / f"slice-{number}"
            used[number].write_bytes(data)
        try:
            read_volume(used, limits=_SMALL)
        except StudyError:
            return

    def _lines(self, rng: random.Random) -> None:
        data = mutated(_EXTRACT, rng, dicom=False)
        encoding = rng.choice(("utf-8", "utf-8", "cp1252", "utf-16", "latin-1"))
        text = TextFile(lambda: BytesIO(data), encoding, "cp1252")
        delimiter = rng.choice((",", ",", ";", "\t"))
        try:
            header, n_header = header_of(text, delimiter)
            if header:
                check_lines(text, delimiter, len(header))
                clean_lines(text, delimiter, len(header), n_header, BytesIO())
        except UnicodeError:
            return  # `load_rows` says that the encoding of the mapping is wrong

    def _rows(self, rng: random.Random) -> None:
        place = self.folder / "rows.csv"
        place.write_bytes(mutated(_EXTRACT, rng, dicom=False))
        for path in self.scratch.iterdir():
            path.unlink()
        try:
            (extract,) = find_extracts(self.source, self.folder)
            with duckdb.connect(":memory:") as connection:
                connection.execute("SET threads = 1")
                load_rows(connection, extract, self.scratch)
        except CacError as error:
            if "This is a bug" in str(error):
                raise


def _require_no_name(row: object) -> None:
    text = repr(row).lower()
    for part in ("quixzotl", "wbmvra", "8675309"):
        if part in text:
            raise LeakError(part)


def _seed_files(folder: Path, shared: Path | None) -> list[bytes]:
    """Beginnings of files of pydicom, of the real files where they are, and of planted headers."""
    named = pydicom_files()
    if shared is not None:
        found = sorted(path for path in shared.rglob("*") if path.is_file())
        # Slices of one series are alike: every fourth, and all of the odd ones.
        named += [p for n, p in enumerate(found) if n % 4 == 0 or "odd" in str(p)]
    heads = []
    for path in named:
        if path.stat().st_size and path.suffix not in (".json", ".md", ".vtu", ".glb", ".nii"):
            with path.open("rb") as stream:
                heads.append(stream.read(_HEAD))
    planted = ct_dataset(PatientName=NAME, PatientID=NUMBER, SeriesDescription=f"CTAC {NUMBER}")
    for number, syntax in enumerate(("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")):
        heads += [write_dicom(folder / f"planted-{number}", planted, syntax).read_bytes()] * 8
    return heads


def _seed_series(folder: Path) -> list[list[Path]]:
    """Small series in several transfer syntaxes, single-frame and multi-frame."""
    size = {"n_slices": 5, "rows": 16, "columns": 16, "pixel_spacing_mm": (16.0, 16.0)}
    series = [write_ct_series(folder / "plain", **size)]
    for name, syntax in (
        ("implicit", "1.2.840.10008.1.2"),
        ("big", "1.2.840.10008.1.2.2"),
        ("deflated", "1.2.840.10008.1.2.1.99"),
    ):
        series.append(write_ct_series(folder / name, syntax=UID(syntax), **size))
    series.append([write_enhanced_ct(folder / "enhanced.dcm", **size)])
    return series
