"""Settings of a site, from one TOML file; unknown keys are errors.

The resolved settings are stored with every run. They hold no secret, only the name of its file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationError, model_validator

from cac_core.cluster_settings import ClusterSettings
from cac_core.errors import UsageError
from cac_core.protocol import ScoringProtocol
from cac_core.results_settings import ResultsSettings
from cac_core.settings_section import Section as _Section
from cac_core.settings_section import key as _key
from cac_core.source_settings import PRIVATE, SourceSettings
from cac_core.storage import is_url
from cac_core.tomlfile import faults_of, read_toml

_TAG = re.compile(r"[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}")


class ScoringSettings(_Section):
    """How a run is divided into shards, and which failures it tolerates.

    Without `shard_size`, a shard holds 250 studies, or 20 per worker thread if that is more. With
    `previews`, small images of the key slices of each study are stored with its score.
    """

    shard_size: int | None = _key(
        None, "studies per shard; without a value, 250 or 20 per worker thread", "250", ge=1
    )
    timeout_s: float = _key(120.0, "longest time for one study, seconds", gt=0)
    memory_limit: str = _key(
        "auto",
        "memory that one study may take: an amount such as 3GiB, or auto: 60 % of the memory of a "
        "worker, at most 4 GiB",
        pattern=r"^(auto|[0-9]+(\.[0-9]+)? ?[kKMGT]i?B)$",
    )
    archive_wait_s: float = _key(
        300.0,
        "how long a run waits, in all, for an archive that is away (drive gone), seconds",
        ge=0,
    )
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
    copy_elements: tuple[str, ...] = _key(
        (), "further elements that `cac export --deidentify` keeps, such as 0043,1027"
    )

    @model_validator(mode="after")
    def _tags_are_tags(self) -> PrivacySettings:
        wrong = [tag for tag in self.copy_elements if not _TAG.fullmatch(tag)]
        if wrong:
            raise ValueError(f"copy_elements: {wrong[0]!r} is no tag; write it as 0043,1027")
        return self

    @property
    def copy_tags(self) -> frozenset[int]:
        """These elements as 32-bit numbers."""
        return frozenset(int(tag.replace(",", ""), 16) for tag in self.copy_elements)


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
    registry: Path | None = _key(
        None,
        "folder of this machine for canonical tables, which hold identifiers, where the warehouse "
        "is at a URL; without a value, a private one of the user",
        '"/data/registry"',
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
    every figure is also a PDF for two columns of a journal, and a TIFF of both widths.
    """

    out: Path | None = _key(
        None, "folder of the report; without a value, in the warehouse", '"/data/report"'
    )
    reviews: Path | None = _key(
        None, "CSV with study_key and cause of discrepant cases", '"reviews.csv"'
    )
    suppress_small_cells: bool = _key(False, "hide counts from 1 to 4 and single cases")
    journal: bool = _key(False, "figures also for two columns of a journal and as TIFF")


class LoggingSettings(_Section):
    """A file with one JSON object per line: runs, steps, studies and warnings, without names."""

    file: Path | None = _key(
        None, "file with JSON lines about runs; without a value, none", '"/var/log/cac/runs.jsonl"'
    )
    max_megabytes: float = _key(20.0, "size at which a new file begins", gt=0)
    keep: int = _key(10, "older files that are kept: FILE.1, FILE.2 ...", ge=1)


class MetricsSettings(_Section):
    """Metrics in the text format of Prometheus, for the textfile collector of its node exporter."""

    textfile: Path | None = _key(
        None, "file with metrics after each run (*.prom)", '"/var/lib/node_exporter/cac.prom"'
    )


class NotifySettings(_Section):
    """Who is told when a night fails: by e-mail, by a webhook, by a notification block of Prefect.

    Messages hold counts and reasons. The password of the mail server comes from CAC_SMTP_PASSWORD;
    CAC_WEBHOOK_URL takes the place of `webhook_url`, which can be a secret.
    """

    smtp_host: str | None = _key(None, "mail server", '"mail.example"')
    smtp_port: int = _key(25, "its port", ge=1, le=65535)
    smtp_starttls: bool = _key(False, "encrypt with STARTTLS and check the certificate")
    smtp_user: str | None = _key(
        None, "user, where the server wants one; password in CAC_SMTP_PASSWORD", '"cac"'
    )
    mail_from: str | None = _key(None, "sender", '"cac@hospital.example"')
    mail_to: tuple[str, ...] | None = _key(None, "recipients", '["it@hospital.example"]')
    webhook_url: str | None = _key(
        None, "address for a JSON POST; CAC_WEBHOOK_URL overrides it", '"https://hooks.example/cac"'
    )
    prefect_block: str | None = _key(
        None, "notification block of the Prefect server, TYPE/NAME", '"slack-webhook/cac"'
    )

    @model_validator(mode="after")
    def _mail_is_whole(self) -> NotifySettings:
        if self.smtp_host and not (self.mail_from and self.mail_to):
            raise ValueError("smtp_host needs mail_from and mail_to")
        if self.webhook_url and not self.webhook_url.startswith(("http://", "https://")):
            raise ValueError("webhook_url begins with http:// or https://")
        return self


class CanarySettings(_Section):
    """Studies that are scored again each night and compared with their first scores, bit for bit.

    `keys` names them; otherwise the first `studies` scored ones are taken. 0 and no keys: none.
    """

    studies: int = _key(0, "scored studies that are checked each night; 0: none", ge=0, le=100)
    keys: tuple[str, ...] = _key((), "study keys to check instead")


class RetentionSettings(_Section):
    """What a run removes at its end; without values, only leftovers of interrupted writing."""

    archive_pages: int = _key(0, "earlier archive pages that are kept beside the newest", ge=0)
    reports: int | None = _key(
        None, "folders of `cac report` that are kept, the newest; without a value, all", "12", ge=1
    )
    exports: int | None = _key(
        None, "folders of `cac export` that are kept, the newest; without a value, all", "12", ge=1
    )
    canary_nights: int | None = _key(
        None, "nights whose rows of `canaries` are kept; without a value, all", "365", ge=1
    )
    staging_days: float | None = _key(
        None,
        "age of unpublished rows, of another model or of a linkage that stopped, at which they are "
        "removed; without a value, never",
        "30",
        gt=0,
    )
    leftover_hours: float = _key(
        24.0, "age of half-written files at which they are removed, hours", ge=1
    )


class ScheduleSettings(_Section):
    """Runs of a schedule: deployments, `cac serve`, and commands with `--scheduled`.

    A schedule is a cron line of five fields in `timezone`; an empty one is none.
    """

    link_after_score: bool = _key(False, "link after each rescoring that was completed")
    report_after_link: bool = _key(False, "write the report after each linkage that has patients")
    wait_for_lock_s: float = _key(
        14400.0, "how long a run waits while another writes to the warehouse, seconds", ge=0
    )
    retries: int = _key(2, "further attempts after a fault; none after wrong usage", ge=0)
    retry_delay_s: float = _key(300.0, "time before the next attempt, seconds", ge=0)
    timezone: str = _key("UTC", "time zone of the schedules of `cac serve`")
    rescore: str = _key("30 1 * * *", "when `cac serve` scores")
    link: str = _key("0 6 * * 1", "when `cac serve` links")
    report: str = _key("0 7 1 * *", "when `cac serve` writes the report")

    @model_validator(mode="after")
    def _zone_is_known(self) -> ScheduleSettings:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"`timezone` {self.timezone!r} is unknown; name one such as Europe/Berlin"
            ) from None
        return self


class BackfillSettings(_Section):
    """`cac backfill`: a whole archive in portions, between which other runs can write."""

    studies_per_portion: int = _key(200, "studies after which other runs can write", ge=1)
    pause_s: float = _key(
        30.0, "time between two portions, seconds; others look for the lock every 10 s", ge=15
    )
    workers: int | None = _key(
        None, "worker processes; without a value, those of [cluster]", "2", ge=1
    )


class Settings(_Section):
    """All settings of a site. Command-line options override them.

    Relative paths refer to the folder of the settings file.
    """

    archive: tuple[Path | str, ...] = _key(
        (), "folders, zip or tar archives, DICOMDIR files or URLs of DICOM studies, any layout"
    )
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
    source: SourceSettings = _key(SourceSettings(), "archives that are no plain folders")
    protocol: ScoringProtocol = _key(ScoringProtocol(), "rules of the Agatston score")
    cluster: ClusterSettings = _key(ClusterSettings(), "where the studies are scored")
    scoring: ScoringSettings = _key(ScoringSettings(), "how a run is divided, and when it fails")
    privacy: PrivacySettings = _key(PrivacySettings(), "free text in the tables")
    linkage: LinkageSettings = _key(LinkageSettings(), "cac link")
    analysis: AnalysisSettings = _key(AnalysisSettings(), "cac analyse")
    report: ReportSettings = _key(ReportSettings(), "cac report")
    logging: LoggingSettings = _key(LoggingSettings(), "log of runs as JSON lines")
    metrics: MetricsSettings = _key(MetricsSettings(), "metrics for Prometheus")
    notify: NotifySettings = _key(NotifySettings(), "who is told when a night fails")
    canary: CanarySettings = _key(CanarySettings(), "studies scored again each night")
    retention: RetentionSettings = _key(RetentionSettings(), "what a run removes at its end")
    schedule: ScheduleSettings = _key(ScheduleSettings(), "runs of a schedule, and cac serve")
    backfill: BackfillSettings = _key(BackfillSettings(), "cac backfill")
    results: ResultsSettings = _key(ResultsSettings(), "scores as DICOM objects, to a PACS")

    def public(self) -> dict[str, Any]:
        """Return the settings as JSON values, without archive, key file, canaries and addresses.

        Names of archive folders can identify patients; the address of a webhook can be a secret;
        keys of studies would outlast `cac forget`.
        """
        receiver = {"stow_url", "stow_user", "dimse_host"}
        secret: Any = {
            **dict.fromkeys(("archive", "key_file", "notify"), True),
            "canary": {"keys"},
            "results": receiver,
            "source": PRIVATE,
        }
        return self.model_dump(mode="json", exclude=secret)


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
            f"The settings file {path}: {faults_of(error, Settings)}.",
            "`cac doctor --settings` lists every key with its default.",
        ) from None


def _place(place: Path | str, folder: Path) -> Path | str:
    """A URL as it is; a path against the folder of the settings file."""
    return str(place) if is_url(str(place)) else folder / place


_LINKAGE_PATHS = ("mapping", "outcomes", "registry", "scratch")


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Resolve relative paths of a settings file against its folder."""
    update: dict[str, Any] = {"archive": tuple(_place(item, folder) for item in settings.archive)}
    for name in ("model", "key_file", "rules"):
        value: Path | None = getattr(settings, name)
        update[name] = None if value is None else folder / value
    paths = {name: getattr(settings.linkage, name) for name in _LINKAGE_PATHS}
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
    update["source"] = settings.source.anchored(folder)
    tls = {name: getattr(settings.results, name) for name in ("tls_ca_file", "tls_cert", "tls_key")}
    update["results"] = settings.results.model_copy(
        update={name: None if path is None else folder / path for name, path in tls.items()}
    )
    report = {name: getattr(settings.report, name) for name in ("out", "reviews")}
    update["report"] = settings.report.model_copy(
        update={name: None if path is None else folder / path for name, path in report.items()}
    )
    if settings.logging.file is not None:
        file = {"file": folder / settings.logging.file}
        update["logging"] = settings.logging.model_copy(update=file)
    if settings.metrics.textfile is not None:
        textfile = {"textfile": folder / settings.metrics.textfile}
        update["metrics"] = settings.metrics.model_copy(update=textfile)
    if settings.warehouse is not None:
        update["warehouse"] = str(_place(settings.warehouse, folder))
    return settings.model_copy(update=update)
