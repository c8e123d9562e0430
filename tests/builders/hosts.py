"""Hosts of a small network: namespaces of this machine, joined by a bridge."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

#: From the range for tests of networks (RFC 2544), which is not routed.
_NET = "198.18.77"


@dataclass(frozen=True)
class Host:
    """A host, with the command that runs another one there."""

    name: str
    address: str
    link: str

    @property
    def enter(self) -> list[str]:
        """Run what follows on this host."""
        return ["ip", "netns", "exec", self.name]

    def cut_off(self) -> None:
        """Take its cable out."""
        _ip("link", "set", self.link, "down")


@dataclass(frozen=True)
class Network:
    """Hosts, and the address of this machine among them."""

    address: str
    hosts: tuple[Host, ...]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def network(n_hosts: int) -> Iterator[Network]:
    """Make the hosts; skips the test where that is not allowed."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here (Debian: iproute2)")
    bridge = f"cb{os.getpid()}"
    with contextlib.ExitStack() as stack:
        try:
            _ip("link", "add", bridge, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"hosts of network namespaces are not allowed here: {error.stderr!r}")
        stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{_NET}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        hosts = tuple(stack.enter_context(_host(bridge, number)) for number in range(n_hosts))
        yield Network(f"{_NET}.1", hosts)


@contextlib.contextmanager
def _host(bridge: str, number: int) -> Iterator[Host]:
    host = Host(f"{bridge}-{number}", f"{_NET}.{number + 10}", f"cv{os.getpid()}{number}")
    _ip("netns", "add", host.name)
    try:
        _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("link", "set", host.link, "master", bridge, "up")
        for command in (
            ("addr", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", host.name, *command)
        yield host
    finally:
        _ip("netns", "del", host.name)
