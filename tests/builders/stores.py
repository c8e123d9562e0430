"""A server that speaks S3 on this machine, and what tests put into it."""

from __future__ import annotations

import contextlib
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Characters that mean something in patterns and URLs.
ODD = "a b [1] *?#%41 é 心"


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Environment that leads to a server with the buckets `archive` and `tables`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
        for bucket in ("archive", "tables"):
            client(environment).call_s3("create_bucket", Bucket=bucket)
        yield environment
    finally:
        server.stop()


def client(environment: dict[str, str]) -> Any:
    """A client of the server that keeps no listings."""
    import s3fs

    return s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        client_kwargs={"region_name": environment["AWS_DEFAULT_REGION"]},
        use_listings_cache=False,
    )


def upload(folder: Path, url: str, environment: dict[str, str]) -> None:
    """Put every file of a folder below a URL."""
    store = client(environment)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            store.pipe_file(f"{url}/{name}", path.read_bytes())


def objects(url: str, environment: dict[str, str]) -> dict[str, bytes]:
    """Every object below a URL, by its path there."""
    store = client(environment)
    root = url.removeprefix("s3://")
    return {name.removeprefix(f"{root}/"): store.cat_file(name) for name in store.find(root)}


def check_credentials(environment: dict[str, str], *, wanted: bool) -> None:
    """Make the server refuse credentials that it did not issue, or accept all again."""
    request = urllib.request.Request(
        f"{environment['AWS_ENDPOINT_URL']}/moto-api/reset-auth",
        data=b"0" if wanted else b"inf",
        headers={"Content-Type": "text/plain"},
        method="POST",
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.status == 200
