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


class ClusterSettings(_Section):
    """Where the studies are scored.

    `local` starts worker processes on this machine; `address` connects to a running Dask scheduler;
    `slurm` and `kubernetes` start workers there (extras of the same name). `options` are passed to
    the cluster class, for example `queue` and `walltime` of SLURM. `memory_limit` of a local worker
    is `auto`, an amount such as `4GiB`, or a share of the machine's memory such as `0.25`.
    A run ends with a message once it has had no workers for `no_workers_s`: by default a minute,
    and an hour where workers wait in a queue (`slurm`, `kubernetes`).

    The `tls` files (PEM) belong to a scheduler at a `tls://` address: certificate of the authority,
    and certificate and key of this run.
    """

    kind: Literal["local", "address", "slurm", "kubernetes"] = "local"
    workers: int | None = Field(default=None, ge=1)
    memory_limit: str = Field(
        default="auto", pattern=r"^(auto|0?\.[0-9]+|[0-9]+(\.[0-9]+)? ?[kKMGT]i?B)$"
    )
    address: str | None = None
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    no_workers_s: float | None = Field(default=None, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)

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

    shard_size: int | None = Field(default=None, ge=1)
    timeout_s: float = Field(default=120.0, gt=0)
    failure_budget: float = Field(default=0.05, ge=0, le=1)
    publish_every_s: float = Field(default=300.0, ge=0)
    previews: bool = True


class PrivacySettings(_Section):
    """Which free text of the headers the tables may hold.

    With `keep_descriptions`, descriptions of studies and series and names of protocols are kept
    except for the identifiers of the patient; without it, only allowed terms and the words that the
    selection rules need.
    """

    keep_descriptions: bool = False


class LinkageSettings(_Section):
    """Input of the linkage, and resources of DuckDB: memory, threads, a folder for temporary data.

    Without `threads`, one per usable core; without `scratch`, the temporary folder of the system.
    """

    mapping: Path | None = None
    outcomes: Path | None = None
    model: str | None = None
    memory_limit: str = Field(default="2GB", pattern=r"^[0-9.]+ ?[KMGT]i?B$")
    threads: int | None = Field(default=None, ge=1)
    scratch: Path | None = None
    suppress_small_cells: bool = False


class AnalysisSettings(_Section):
    """The analysis plan, and where its resamples run: threads of this machine, or the Dask cluster.

    Without `threads`, one per usable core. The results do not depend on either.
    """

    plan: Path | None = None
    spread: Literal["threads", "dask"] = "threads"
    threads: int | None = Field(default=None, ge=1)


class ReportSettings(_Section):
    """Folder of the cohort report (default `reports/cohort` of the warehouse) and its content.

    `reviews` is a CSV with the causes that reviewers found for discrepant cases.
    """

    out: Path | None = None
    reviews: Path | None = None
    suppress_small_cells: bool = False


class Settings(_Section):
    """All settings of a site. Command-line options override them.

    Relative paths refer to the folder of the settings file.
    """

    archive: tuple[Path, ...] = ()
    warehouse: str | None = None
    model: Path | None = None
    key_file: Path | None = None
    rules: Path | None = None
    index_workers: int | None = Field(default=None, ge=1)
    protocol: ScoringProtocol = ScoringProtocol()
    cluster: ClusterSettings = ClusterSettings()
    scoring: ScoringSettings = ScoringSettings()
    privacy: PrivacySettings = PrivacySettings()
    linkage: LinkageSettings = LinkageSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    report: ReportSettings = ReportSettings()

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
