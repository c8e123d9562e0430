"""Settings of results as DICOM objects: what is made, how it is marked, where it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from cac_core.settings_section import Section, key

Kind = Literal["seg", "sr", "page"]


class ResultsSettings(Section):
    """`cac export --dicom`: scores as DICOM objects, in a folder or sent to a PACS.

    `stow_url` or `dimse_host` names the receiver, not both. Passwords are no settings: that of
    `stow_user` comes from CAC_STOW_PASSWORD, a bearer token from CAC_STOW_TOKEN.
    """

    kinds: tuple[Kind, ...] = key(
        ("seg", "sr", "page"), "objects of a study: seg, sr, and page (Encapsulated PDF)"
    )
    research: bool = key(
        True, "mark every object as research, not for diagnosis; false only where a site may"
    )
    manufacturer: str = key("cac-cohort", "Manufacturer in the objects", max_length=64)
    institution: str | None = key(None, "InstitutionName in the objects", '"Hospital"')
    nightly: bool = key(False, "after each rescoring, send the objects of scores not sent yet")
    stow_url: str | None = key(
        None, "base URL of a DICOMweb service", '"https://pacs.example/dicom-web"'
    )
    stow_user: str | None = key(None, "its user; password in CAC_STOW_PASSWORD", '"cac"')
    dimse_host: str | None = key(None, "host of a storage SCP (C-STORE)", '"pacs.example"')
    dimse_port: int = key(11112, "its port", ge=1, le=65535)
    dimse_called_aet: str = key("ANY-SCP", "its AE title", max_length=16)
    dimse_aet: str = key("CAC", "our AE title", max_length=16)
    tls_ca_file: Path | None = key(
        None,
        "certificates that the receiver's must be signed by; for C-STORE this switches TLS on",
        '"ca.pem"',
    )
    tls_cert: Path | None = key(None, "our certificate, where the receiver wants one", '"us.pem"')
    tls_key: Path | None = key(None, "its key", '"us.key"')
    timeout_s: float = key(30.0, "longest wait for the receiver, seconds", gt=0)
    retries: int = key(3, "further attempts to send, with growing pauses", ge=0, le=10)
    retry_delay_s: float = key(2.0, "first of these pauses, seconds", ge=0)

    @model_validator(mode="after")
    def _one_receiver(self) -> ResultsSettings:
        if self.stow_url and not self.stow_url.startswith(("https://", "http://")):
            raise ValueError("stow_url begins with https:// or http://")
        if self.nightly and not self.has_receiver:
            raise ValueError("nightly needs stow_url or dimse_host")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together")
        return self

    @property
    def address(self) -> str:
        """Where the objects go; empty without a receiver."""
        if self.stow_url:
            return self.stow_url
        return (
            f"{self.dimse_called_aet}@{self.dimse_host}:{self.dimse_port}"
            if self.dimse_host
            else ""
        )

    @property
    def has_receiver(self) -> bool:
        """Whether the settings name a receiver."""
        return bool(self.stow_url or self.dimse_host)
