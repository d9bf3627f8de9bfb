"""Where the options of a storage name its server, and what makes its client impatient."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_PROTOCOLS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
}


def service_of(url: str) -> str:
    """``s3``, ``gcs`` or ``azure``; "" for a URL that is reached otherwise."""
    return _PROTOCOLS.get(url.rpartition("::")[2].partition("://")[0], "")


def endpoint_of(url: str, options: Mapping[str, Any]) -> str | None:
    """The server that the options name, as ``http://host:port``; None where they name none."""
    service = service_of(url)
    client = options.get("client_kwargs") or {}
    named: Any = options.get("endpoint_url") or client.get("endpoint_url")
    if service == "azure":
        found = re.search(r"BlobEndpoint=([^;]+)", str(options.get("connection_string") or ""))
        named = found[1] if found else options.get("account_host")
    elif service not in ("s3", "gcs"):
        return None
    if not named:
        return None
    parts = urlsplit(str(named))
    if parts.scheme not in ("http", "https"):
        return None
    return f"{parts.scheme}://{parts.netloc}"


def through(url: str, options: Mapping[str, Any], proxy_url: str) -> dict[str, Any]:
    """The same options, with the proxy in the place of the server."""
    endpoint = endpoint_of(url, options)
    if endpoint is None:
        raise ValueError(f"the options of {url} name no server that a proxy could stand before")
    return {name: _moved(value, endpoint, proxy_url) for name, value in options.items()}


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, Mapping):
        return {name: _moved(v, old, new) for name, v in value.items()}
    return value


def repeating(url: str, options: Mapping[str, Any], attempts: int) -> dict[str, Any]:
    """The same options, with which the client itself makes a request so often, where they can say so (S3)."""
    made = dict(options)
    if service_of(url) == "s3":
        retries = {"total_max_attempts": attempts, "mode": "standard"}
        made["config_kwargs"] = {**(options.get("config_kwargs") or {}), "retries": retries}
    return made


def impatient(url: str, options: Mapping[str, Any], patience_s: float) -> dict[str, Any]:
    """The same options, with which the client waits `patience_s` for an answer."""
    made = dict(options)
    service = service_of(url)
    if service == "s3":
        waits = {"read_timeout": patience_s, "connect_timeout": patience_s}
        made["config_kwargs"] = {**(options.get("config_kwargs") or {}), **waits}
    elif service == "gcs":
        made["requests_timeout"] = patience_s
    elif service == "azure":
        made["read_timeout"] = patience_s
        made["connection_timeout"] = patience_s
    return made


__all__ = ["endpoint_of", "impatient", "repeating", "service_of", "through"]
