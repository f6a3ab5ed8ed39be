"""Checks the token of a Ray cluster at once; Ray itself tries for 20 s."""

from __future__ import annotations

import os
import secrets

import grpc
import ray

from ptal_ray.backends.ray.address import source
from ptal_ray.backends.ray.private import has_token, token_header
from ptal_ray.errors import ConfigError
from ptal_ray.storage.user_directories import home_is_writable

ASK_WITHIN_S = 5.0
ASK = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # first call of every client, without arguments
HINT = (
    "set RAY_AUTH_MODE=token and put the token of the cluster in ~/.ray/auth_token, in the file "
    "named by RAY_AUTH_TOKEN_PATH, or in RAY_AUTH_TOKEN"
)


def keep_token() -> None:
    """Create the token of a Ray that is started here, if Ray cannot: it would write a new one into
    the home directory."""
    if not has_token() and not home_is_writable():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def check_token(address: str) -> None:
    """Check that the cluster at host:port, where a gRPC server answers, accepts our token.

    Raises:
        ConfigError: it requires a token, and there is none or another one here.
    """
    try:
        header = token_header()
    except ray.exceptions.AuthenticationError as error:
        raise refused(address, str(error)) from error
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(ASK)(b"", timeout=ASK_WITHIN_S, metadata=tuple(header.items()))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                has = "the token is wrong" if header else "RAY_AUTH_MODE is not set"
                raise refused(address, f"it requires a token, and {has}") from error
            # Ray itself detects all other errors; this version may have another protocol.


def refused(address: str, reason: str) -> ConfigError:
    """The error for a client that a cluster rejects."""
    short = reason.splitlines()[0].partition(". ")[0]
    return ConfigError(f"{source(address)}: authentication failed ({short}); {HINT}")
