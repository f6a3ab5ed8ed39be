"""The address of a Ray cluster: its source and its format."""

from __future__ import annotations

import os
import re

from ptal_ray.errors import ConfigError

VARIABLE = "RAY_ADDRESS"
FORMS = (
    "give host:port of the head node (usually port 6379), auto for a cluster on this machine, or "
    "local for no cluster"
)


def given_address(flag: str | None) -> str | None:
    """The address in --address, else in RAY_ADDRESS; None for only this machine.

    Args:
        flag: the value of --address, or None.

    Raises:
        ConfigError: the address is not valid; the message names the flag or the variable.
    """
    address = flag if flag is not None else os.environ.get(VARIABLE) or None
    if address in (None, "local"):  # Ray's word for none
        return None
    assert address is not None
    if address != "auto":
        host_and_port(address)
    return address


def source(address: str) -> str:
    """The name of an address in messages: the variable it comes from, else the flag."""
    name = VARIABLE if address and address == os.environ.get(VARIABLE) else "--address"
    shown = re.sub(r"//.*@", "//", address)  # without a password
    return f"{name} {shown}" if shown.strip() else f"{name} {shown!r}"


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of host:port or [IPv6]:port.

    Raises:
        ConfigError: it has another form.
    """
    if "://" in address:
        raise ConfigError(f"{source(address)}: {_other_service(address)}")
    parts = re.fullmatch(r"(?:\[([^\[\]\s]+)\]|([^:\s\[\]]+)):([0-9]{1,5})", address)
    if parts is None and re.fullmatch(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9]+", address):
        raise ConfigError(f"{source(address)}: write an IPv6 address in brackets, [host]:port")
    if parts is None or not 0 < int(parts[3]) < 1 << 16:
        raise ConfigError(f"{source(address)}: {FORMS}")
    return parts[1] or parts[2], int(parts[3])


def _other_service(address: str) -> str:
    """Advice for an address with a scheme."""
    if address.startswith(("http://", "https://")):
        return (
            "this is the address of the dashboard, which accepts only jobs (`ray job submit "
            f"--address URL -- COMMAND`); {FORMS}"
        )
    return (
        f"Ray Client cannot run a search; start it on the cluster with `ray job submit`, or {FORMS}"
    )
