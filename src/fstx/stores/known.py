"""Services whose promises are documented by those who run them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """One service: how its identity begins, and where it says what."""

    name: str
    identity: re.Pattern[str]
    source: str
    durability: str


_SERVICES = (
    Known(
        "Amazon S3",
        re.compile(r"s3:https://s3[.a-z0-9-]*\.amazonaws\.com(\.cn)?:"),
        "Amazon S3 user guide, conditional requests and data consistency model "
        "(docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html)",
        "Amazon S3 acknowledges a put when it is stored redundantly",
    ),
    Known(
        "Google Cloud Storage",
        re.compile(r"gcs:https://storage(\.mtls)?\.googleapis\.com:"),
        "Cloud Storage documentation, request preconditions and consistency "
        "(cloud.google.com/storage/docs/request-preconditions)",
        "Cloud Storage acknowledges a put when it is stored redundantly",
    ),
    Known(
        "Azure Blob Storage",
        re.compile(
            r"azure:https://[a-z0-9]+\.blob\.core\."
            r"(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn):"
        ),
        "Azure Storage documentation, conditional headers for Blob service operations "
        "(learn.microsoft.com/rest/api/storageservices)",
        "Azure Storage acknowledges a put when it is stored redundantly",
    ),
)


def known_service(identity: str) -> Known | None:
    """The known service that a store's identity belongs to."""
    return next((k for k in _SERVICES if k.identity.match(identity)), None)


__all__ = ["Known", "known_service"]
