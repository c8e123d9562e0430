"""Settings of a site, from one TOML file; unknown keys are errors.

The resolved settings are stored with every run. They hold no secret, only the name of its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cac_core.errors import UsageError
from cac_core.protocol import ScoringProtocol
from cac_core.tomlfile import faults_of, read_toml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _key(default: Any, description: str, example: str | None = None, **limits: Any) -> Any:
    """A key with its comment in the settings file, and an example (TOML) if it has no default."""
    examples = None if example is None else [example]
    if callable(default):
        return Field(default_factory=default, description=description, examples=examples, **limits)
    return Field(default=default, description=description, examples=examples, **limits)


class ClusterSettings(_Section):
    """Where the studies are scored.

    `local` starts worker processes on this machine; `address` connects to a running Dask scheduler;
    `slurm` and `kubernetes` start workers there (extras of the same name). `options` are passed to
    the cluster class, for example `queue` and `walltime` of SLURM.

    The `tls` files (PEM) belong to a scheduler at a `tls://` address: certificate of the authority,
    and certificate and key of this run.
    """

    kind: Literal["local", "address", "slurm", "kubernetes"] = _key(
        "local", "local: this machine; address: a running Dask scheduler; slurm; kubernetes"
    )
    workers: int | None = _key(
        None, "worker processes; without a value, one per usable core", "8", ge=1
    )
    memory_limit: str = _key(
        "auto",
        "memory of a local worker: auto (an equal share), an amount such as 4GiB, or a share",
        pattern=r"^(auto|0?\.[0-9]+|[0-9]+(\.[0-9]+)? ?[kKMGT]i?B)$",
    )
    address: str | None = _key(
        None, "scheduler, for kind `address`", '"tls://scheduler.example:8786"'
    )
    tls_ca_file: Path | None = _key(None, "certificate of the authority (PEM)", '"ca.pem"')
    tls_cert: Path | None = _key(None, "certificate of the run (PEM)", '"run.pem"')
    tls_key: Path | None = _key(None, "its key (PEM), readable by its owner only", '"run.key"')
    no_workers_s: float | None = _key(
        None,
        "a run without workers ends after this time; without a value 60, or 3600 where workers "
        "wait in a queue",
        "60",
        gt=0,
    )
    options: dict[str, Any] = _key(
        dict, "arguments of the cluster class, e.g. { queue = 'long', walltime = '08:00:00' }"
    )

    @property
    def patience_s(self) -> float:
        """How long a run waits for workers when it has none."""
        if self.no_workers_s is not None:
            return self.no_workers_s
        return 3600.0 if self.kind in ("slurm", "kubernetes") else 60.0

    @model_validator(mode="after")
    def _tls_is_whole(self) -> ClusterSettings:
        named = [path for path in (self.tls_ca_file, self.tls_cert, self.tls_key) if path]
        if named and (self.kind != "address" or not (self.address or "").startswith("tls://")):
            raise ValueError("tls files need kind `address` and an address tls://HOST:PORT")
        if named and len(named) < 3:
            raise ValueError("set all of tls_ca_file, tls_cert and tls_key, or none")
        return self

    @property
    def exposure(self) -> str | None:
        """Warning where other users can reach the cluster, else None."""
        if self.kind != "address" or not self.address or self.address.startswith("tls://"):
            return None
        return (
            f"anyone who can reach the Dask scheduler at {self.address} can run code as the user "
            "of its workers; start scheduler and workers with --tls-*, and set a tls:// address "
            "and tls_ca_file, tls_cert and tls_key"
        )


class ScoringSettings(_Section):
    """How a run is divided into shards, and which failures it tolerates.

    Without `shard_size`, a shard holds 250 studies, or 20 per worker thread if that is more. With
    `previews`, small images of the key slices of each study are stored with its score.
    """

    shard_size: int | None = _key(
        None, "studies per shard; without a value, 250 or 20 per worker thread", "250", ge=1
    )
    timeout_s: float = _key(120.0, "longest time for one study, seconds", gt=0)
    failure_budget: float = _key(
        0.05, "share of failed studies above which a run ends with exit code 3", ge=0, le=1
    )
    publish_every_s: float = _key(300.0, "time between two publications, seconds", ge=0)
    previews: bool = _key(True, "store small images of the key slices of each study")


class PrivacySettings(_Section):
    """Which free text of the headers the tables may hold.

    With `keep_descriptions`, descriptions of studies and series and names of protocols are kept
    except for the identifiers of the patient; without it, only allowed terms and the words that the
    selection rules need.
    """

    keep_descriptions: bool = _key(
        False, "keep descriptions of studies and series (docs/privacy.md), not only allowed terms"
    )


class LinkageSettings(_Section):
    """Input of the linkage, and resources of DuckDB: memory, threads, a folder for temporary data.

    Without `threads`, one per usable core; without `scratch`, the temporary folder of the system.
    """

    mapping: Path | None = _key(None, "description of the registry extracts", '"site.toml"')
    outcomes: Path | None = _key(
        None, "definitions of the outcomes; without a value, the paper's", '"outcomes.toml"'
    )
    model: str | None = _key(
        None,
        "id of the model whose scores are linked; needed only if the warehouse holds several",
        '"convlstm-s9-01234567"',
    )
    memory_limit: str = _key("2GB", "memory of DuckDB", pattern=r"^[0-9.]+ ?[KMGT]i?B$")
    threads: int | None = _key(
        None, "threads of DuckDB; without a value, one per usable core", "4", ge=1
    )
    scratch: Path | None = _key(
        None, "folder for temporary data, which can hold identifiers", '"/var/tmp"'
    )
    suppress_small_cells: bool = _key(False, "hide counts from 1 to 4")


class AnalysisSettings(_Section):
    """The analysis plan, and where its resamples run: threads of this machine, or the Dask cluster.

    Without `threads`, one per usable core. The results do not depend on either.
    """

    plan: Path | None = _key(None, "analysis plan; without a value, the paper's", '"plan.toml"')
    spread: Literal["threads", "dask"] = _key(
        "threads", "where resamples run: threads of this machine, or dask: the cluster above"
    )
    threads: int | None = _key(
        None, "threads of the analysis; without a value, one per usable core", "4", ge=1
    )


class ReportSettings(_Section):
    """Folder of the cohort report (default `reports/cohort` of the warehouse) and its content.

    `reviews` is a CSV with the causes that reviewers found for discrepant cases; with `journal`
    every figure is also a TIFF at the sizes of journals.
    """

    out: Path | None = _key(
        None, "folder of the report; without a value, in the warehouse", '"/data/report"'
    )
    reviews: Path | None = _key(
        None, "CSV with study_key and cause of discrepant cases", '"reviews.csv"'
    )
    suppress_small_cells: bool = _key(False, "hide counts from 1 to 4 and single cases")
    journal: bool = _key(False, "figures also as TIFF at the sizes of journals")


class Settings(_Section):
    """All settings of a site. Command-line options override them.

    Relative paths refer to the folder of the settings file.
    """

    archive: tuple[Path, ...] = _key((), "folders of DICOM studies, any layout")
    warehouse: str | None = _key(None, "folder or fsspec URL for the tables", '"/data/cac"')
    model: Path | None = _key(
        None, "folder of weights; without a value, the shipped weights", '"weights"'
    )
    key_file: Path | None = _key(
        None, "file with the linkage secret; without a value, CAC_LINKAGE_KEY", '"linkage.key"'
    )
    rules: Path | None = _key(
        None, "rules that choose the series; without a value, the shipped ones", '"rules.toml"'
    )
    index_workers: int | None = _key(
        None, "processes that read headers; without a value, one per usable core", "4", ge=1
    )
    protocol: ScoringProtocol = _key(ScoringProtocol(), "rules of the Agatston score")
    cluster: ClusterSettings = _key(ClusterSettings(), "where the studies are scored")
    scoring: ScoringSettings = _key(ScoringSettings(), "how a run is divided, and when it fails")
    privacy: PrivacySettings = _key(PrivacySettings(), "free text in the tables")
    linkage: LinkageSettings = _key(LinkageSettings(), "cac link")
    analysis: AnalysisSettings = _key(AnalysisSettings(), "cac analyse")
    report: ReportSettings = _key(ReportSettings(), "cac report")

    def public(self) -> dict[str, Any]:
        """Return the settings as JSON values, without archive and key file.

        Names of archive folders can identify patients.
        """
        return self.model_dump(mode="json", exclude={"archive", "key_file"})


def load_settings(path: Path | None) -> Settings:
    """Read `cac.toml`; without a path, return the defaults.

    Raises
    ------
    UsageError
        If the file cannot be read, is not TOML, or holds an unknown key or an invalid value.
    """
    if path is None:
        return Settings()
    values = read_toml(
        path,
        "The settings file",
        "Name another file with --config, or omit the option for the defaults.",
    )
    try:
        return _anchored(Settings.model_validate(values), path.resolve().parent)
    except ValidationError as error:
        raise UsageError(
            f"The settings file {path}: {faults_of(error)}.",
            "`cac doctor --settings` lists every key with its default.",
        ) from None


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Resolve relative paths of a settings file against its folder."""
    update: dict[str, Any] = {"archive": tuple(folder / item for item in settings.archive)}
    for name in ("model", "key_file", "rules"):
        value: Path | None = getattr(settings, name)
        update[name] = None if value is None else folder / value
    paths = {name: getattr(settings.linkage, name) for name in ("mapping", "outcomes", "scratch")}
    update["linkage"] = settings.linkage.model_copy(
        update={name: None if path is None else folder / path for name, path in paths.items()}
    )
    if settings.analysis.plan is not None:
        plan = {"plan": folder / settings.analysis.plan}
        update["analysis"] = settings.analysis.model_copy(update=plan)
    tls = {name: getattr(settings.cluster, name) for name in ("tls_ca_file", "tls_cert", "tls_key")}
    update["cluster"] = settings.cluster.model_copy(
        update={name: None if path is None else folder / path for name, path in tls.items()}
    )
    report = {name: getattr(settings.report, name) for name in ("out", "reviews")}
    update["report"] = settings.report.model_copy(
        update={name: None if path is None else folder / path for name, path in report.items()}
    )
    if settings.warehouse is not None and "://" not in settings.warehouse:
        update["warehouse"] = str(folder / settings.warehouse)
    return settings.model_copy(update=update)
