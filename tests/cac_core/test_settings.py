"""The settings file: defaults, overrides, relative paths, unknown keys."""

from __future__ import annotations

from logging import getLogger
from pathlib import Path

import pytest
from distributed.worker_memory import parse_memory_limit

from cac_core.errors import UsageError
from cac_core.protocol import ScoringProtocol
from cac_core.settings import Settings, load_settings


def test_without_a_file_the_defaults() -> None:
    settings = load_settings(None)
    assert settings == Settings()
    assert settings.protocol == ScoringProtocol()
    assert settings.cluster.kind == "local"


def test_relative_paths_refer_to_the_folder_of_the_file(tmp_path) -> None:
    path = tmp_path / "cac.toml"
    path.write_text('archive = ["a", "/b"]\nwarehouse = "w"\nkey_file = "k"\n')
    settings = load_settings(path)
    assert [str(item) for item in settings.archive] == [str(tmp_path / "a"), "/b"]
    assert settings.warehouse == str(tmp_path / "w")
    assert settings.key_file == tmp_path / "k"


def test_a_url_is_not_changed(tmp_path) -> None:
    path = tmp_path / "cac.toml"
    path.write_text('warehouse = "s3://bucket/cac"\n')
    assert load_settings(path).warehouse == "s3://bucket/cac"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("treshold = 1", "unknown key `treshold`"),
        ("[scoring]\nshard = 1", "unknown key `scoring.shard`"),
        ("[protocol]\nthreshold = 1", "unknown key `protocol.threshold`"),
        ("[scoring]\nshard_size = 0", "`scoring.shard_size`"),
        ('[cluster]\nkind = "yarn"', "`cluster.kind`"),
        ('[cluster]\nmemory_limit = "banana"', "`cluster.memory_limit`"),
        ("[protocol]\nthreshold_hu = nan", "threshold_hu must be a number above 0, not nan"),
        ("[protocol]\nthreshold_hu = inf", "threshold_hu must be a number above 0, not inf"),
        ("[protocol]\nthreshold_hu = -1", "threshold_hu must be a number above 0, not -1"),
        ("[protocol]\nmin_area_mm2 = -1.5", "min_area_mm2 must be a number from 0, not -1.5"),
        ("[protocol]\nreference_increment_mm = 0", "reference_increment_mm must be"),
        ("[protocol]\nweight_edges_hu = [200, 400, 300]", "three increasing numbers"),
        ("archive = [", "not valid TOML"),
    ],
)
def test_invalid_keys_are_named(tmp_path, text, named) -> None:
    path = tmp_path / "cac.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("limit", ["auto", "4GiB", "1500 MB", "0.25", ".5", "2.5GB"])
def test_memory_limits_that_dask_takes(tmp_path: Path, limit: str) -> None:
    path = tmp_path / "cac.toml"
    path.write_text(f'[cluster]\nmemory_limit = "{limit}"\n')
    load_settings(path)
    assert limit == "auto" or parse_memory_limit(limit, 1, 1, logger=getLogger())


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")


def test_public_settings_hold_no_identifying_path(tmp_path) -> None:
    path = tmp_path / "cac.toml"
    path.write_text('archive = ["/archive/DOE_JOHN"]\nkey_file = "secret.key"\n')
    text = str(load_settings(path).public())
    assert "DOE" not in text
    assert "secret.key" not in text


def test_public_settings_hold_no_address_and_no_key_of_a_study(tmp_path: Path) -> None:
    path = tmp_path / "cac.toml"
    path.write_text(
        '[notify]\nwebhook_url = "https://hooks.example/token"\nsmtp_host = "mail.example"\n'
        'mail_from = "a@example.org"\nmail_to = ["b@example.org"]\n[canary]\nkeys = ["0f3a"]\n'
    )
    text = str(load_settings(path).public())
    assert not [word for word in ("token", "example", "0f3a") if word in text]


def test_a_mail_server_needs_sender_and_recipient(tmp_path: Path) -> None:
    path = tmp_path / "cac.toml"
    path.write_text('[notify]\nsmtp_host = "mail.example"\n')
    with pytest.raises(UsageError, match="mail_from and mail_to"):
        load_settings(path)


def test_tls_files_are_complete_and_need_a_tls_address(tmp_path: Path) -> None:
    config = tmp_path / "cac.toml"
    files = 'tls_ca_file = "ca.pem"\ntls_cert = "run.pem"\n'
    for text, message in (
        (f'kind = "address"\naddress = "tls://x:1"\n{files}', "or none"),
        (f'kind = "address"\naddress = "tcp://x:1"\n{files}tls_key = "k"\n', "tls://HOST:PORT"),
        (f'{files}tls_key = "k"\n', "kind `address`"),
    ):
        config.write_text(f"[cluster]\n{text}")
        with pytest.raises(UsageError, match=message):
            load_settings(config)
    config.write_text(
        f'[cluster]\nkind = "address"\naddress = "tls://x:1"\n{files}tls_key = "/run.key"\n'
    )
    cluster = load_settings(config).cluster
    assert cluster.tls_ca_file == tmp_path / "ca.pem"
    assert cluster.tls_key == Path("/run.key")
    assert cluster.exposure is None
    config.write_text('[cluster]\nkind = "address"\naddress = "tcp://x:1"\n')
    assert "tcp://x:1" in str(load_settings(config).cluster.exposure)
